// PM2 runs Ryemill as two apps, server and worker, from the native binary:
//
//     cargo build --release
//     pm2 start prod/ecosystem.config.js
//
// What Ryemill itself is told is in .env.production (see README.md here). For this file, from the environment of pm2:
//   RYEMILL_BIN      the binary; default target/release/ryemill of this checkout
//   RYEMILL_LOG_DIR  folder of server.log and worker.log; default /var/log/ryemill
const fs = require('node:fs');
const path = require('node:path');

const root = path.resolve(__dirname, '..');
const binary = path.resolve(root, process.env.RYEMILL_BIN || 'target/release/ryemill');
const logs = path.resolve(process.env.RYEMILL_LOG_DIR || '/var/log/ryemill');

// As Ryemill reads it: the process environment, then .env.production, then .env, then its default.
function setting(name, preset) {
  const line = new RegExp(`^\\s*(?:export\\s+)?${name}\\s*=\\s*(['"]?)([^'"#\\s]*)\\1`, 'm');
  const given = ['.env.production', '.env']
    .map((file) => path.join(root, file))
    .filter((file) => fs.existsSync(file))
    .map((file) => fs.readFileSync(file, 'utf8').match(line)?.[2]);
  return [process.env[name], ...given].find((value) => value) || preset;
}

function milliseconds(duration) {
  const [, number, unit] = duration.match(/^(\d+)(ms|s|m|h|d)$/) || [];
  if (!unit) {
    throw new Error(`SHUTDOWN_GRACE=${duration} is not a duration such as 20s`);
  }
  return Number(number) * { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }[unit];
}

// Runs get the grace period to end; handing back the rest takes 12 s more at worst (worker::EXTRA). PM2 kills only after both.
const MARGIN = 15_000;

const app = (name, limits) => ({
  name: `ryemill-${name}`,
  script: binary,
  args: name,
  interpreter: 'none',
  exec_mode: 'fork',
  instances: 1,
  cwd: root,
  env: { APP_ENV: 'production', LOG_FORMAT: 'json' },

  kill_timeout: milliseconds(setting('SHUTDOWN_GRACE', '20s')) + MARGIN,
  // One process each: there is no tree to walk, and no `ps` needed for it.
  treekill: false,

  autorestart: true,
  // From 0.1 s up to 15 s between starts, for as long as it takes: no number of crashes ends it.
  exp_backoff_restart_delay: 100,
  max_restarts: Number.MAX_SAFE_INTEGER,
  ...limits,

  // Standard output is empty, the log is on standard error. Lines carry their own time, so no prefix.
  out_file: path.join(logs, `${name}.log`),
  error_file: path.join(logs, `${name}.log`),
  merge_logs: true,
  time: false,
  vizion: false,
});

try {
  fs.mkdirSync(logs, { recursive: true });
  fs.accessSync(logs, fs.constants.W_OK);
} catch (error) {
  throw new Error(`${logs} cannot be written (${error.code}): make it for this user, or set RYEMILL_LOG_DIR`);
}

module.exports = {
  apps: [
    app('server', { max_memory_restart: '1G' }),
    // A backstop against a leak. Scripts are held to their own `memory`; what runs at the restart gets the grace period.
    app('worker', { max_memory_restart: '4G' }),
  ],
};
