// The PM2 set-up of prod/, with the real PM2: both apps start, are back after kill -9, lose no accepted job, stop
// cleanly, and log outside the checkout.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';
import { atEnd, binary, Client, environment, modules, root, run, scratch, until } from './lib.mjs';

const ECOSYSTEM = path.join(root, 'prod/ecosystem.config.js');

/** A PM2 of the test's own. It and its apps are gone when the test has ended. */
async function processManager(t, folder, more) {
  const env = await environment(folder, {
    PM2_HOME: path.join(folder, 'pm2'),
    RYEMILL_BIN: binary,
    RYEMILL_LOG_DIR: path.join(folder, 'logs'),
    ...more,
  });
  const pm2 = async (...args) => {
    const done = await run(process.execPath, [path.join(modules, 'pm2/bin/pm2'), ...args], { env });
    assert.equal(done.code, 0, `pm2 ${args.join(' ')}: ${done.stdout}${done.stderr}`);
    return done.stdout;
  };
  const app = async (name) => {
    const list = JSON.parse((await pm2('jlist', '--silent')).match(/^\[.*\]$/m)[0]);
    const found = list.find((known) => known.name === `ryemill-${name}`);
    assert.ok(found, `PM2 has no app ryemill-${name}`);
    return { pid: found.pid, status: found.pm2_env.status, restarts: found.pm2_env.restart_time, env: found.pm2_env };
  };
  atEnd(t, async () => {
    const daemon = Number(fs.readFileSync(path.join(env.PM2_HOME, 'pm2.pid'), 'utf8'));
    await pm2('kill');
    await until('the end of the PM2 daemon', () => !alive(daemon));
  });
  return { env, pm2, app, log: (name) => fs.readFileSync(path.join(env.RYEMILL_LOG_DIR, `${name}.log`), 'utf8') };
}

function alive(pid) {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** Everything in the checkout that git does not know, ignored or not. */
async function strangers() {
  const { stdout } = await run('git', ['status', '--porcelain', '--ignored', '--untracked-files=all'], { env: process.env });
  return stdout.split('\n').filter((line) => line && !/ (target|tests\/e2e\/node_modules)\//.test(line));
}

test('PM2 keeps server and worker running, and nothing is lost', async (t) => {
  const before = await strangers();
  const { env, pm2, app, log } = await processManager(t, scratch(t), { LEASE: '2s', SHUTDOWN_GRACE: '2s' });
  const api = new Client(env.PORT);
  await pm2('start', ECOSYSTEM);
  await api.ready();

  await t.test('the worker is back after kill -9, and its job runs again to the end', async () => {
    const { id } = await api.submit('long_task', { steps: 20, step_time: '100ms' });
    await until('a running job', async () => (await api.job(id)).progress?.percent > 10);
    const { pid, restarts } = await app('worker');
    process.kill(pid, 'SIGKILL');
    const job = await api.end(id);
    assert.equal(job.state, 'succeeded', JSON.stringify(job.error));
    assert.equal(job.lost, 1);
    const now = await app('worker');
    assert.notEqual(now.pid, pid);
    assert.equal(now.status, 'online');
    assert.equal(now.restarts, restarts + 1);
  });

  await t.test('the server is back after kill -9, with the job that it had just accepted', async () => {
    const { pid } = await app('server');
    const { id } = await api.submit('email', { to: 'ada@example.com', subject: 'Accepted' }, { delay: '2s' });
    process.kill(pid, 'SIGKILL');
    await until('the server', () => api.call('GET', '/readyz'));
    assert.notEqual((await app('server')).pid, pid);
    const job = await api.end(id);
    assert.equal(job.state, 'succeeded', JSON.stringify(job.error));
  });

  await t.test('a stop is clean, within kill_timeout, and hands the running job back', async () => {
    const { id } = await api.submit('long_task', { steps: 40, step_time: '100ms' });
    await until('a running job', async () => (await api.job(id)).state === 'running');
    const { kill_timeout: killTimeout } = (await app('worker')).env;
    assert.equal(killTimeout, 17_000, 'SHUTDOWN_GRACE and the margin');
    await pm2('stop', 'ryemill-worker');
    const stopped = await app('worker');
    assert.equal(stopped.status, 'stopped');
    assert.equal(stopped.env.exit_code, 0, log('worker'));
    const handedBack = await api.job(id);
    assert.equal(handedBack.state, 'queued');
    assert.equal(handedBack.lost, 0);
    assert.deepEqual(handedBack.attempts.map((attempt) => attempt.outcome), ['released']);

    await pm2('start', 'ryemill-worker');
    const job = await api.end(id);
    assert.equal(job.state, 'succeeded', JSON.stringify(job.error));
    assert.equal(job.attempt, 1, 'a release burns no attempt');

    await pm2('stop', 'ryemill-server');
    assert.equal((await app('server')).env.exit_code, 0, log('server'));
  });

  await t.test('the logs are JSON lines, outside the checkout', async () => {
    for (const name of ['server', 'worker']) {
      const lines = log(name).trim().split('\n');
      assert.ok(lines.length > 3);
      for (const line of lines) assert.ok(JSON.parse(line).timestamp, line);
    }
    assert.deepEqual(await strangers(), before);
  });
});
