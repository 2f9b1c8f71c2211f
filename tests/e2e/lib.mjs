// What the end-to-end tests share: the release binary, folders of their own, processes that end with the test.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
export const binary = path.resolve(root, process.env.RYEMILL_BIN || 'target/release/ryemill');
export const modules = path.join(root, 'tests/e2e/node_modules');

const undoings = new WeakMap();
const open = new Set();

/** Does `step` when the test `t` has ended, the last one first. */
export function atEnd(t, step) {
  if (!undoings.has(t)) {
    const steps = [];
    undoings.set(t, steps);
    const undo = async () => {
      open.delete(undo);
      const faults = [];
      for (const step of [...steps].reverse()) {
        await Promise.resolve().then(step).catch((fault) => faults.push(fault));
      }
      if (faults.length > 0) throw faults[0];
    };
    open.add(undo);
    t.after(undo);
  }
  undoings.get(t).push(step);
}

// An interrupted test leaves nothing behind either.
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, async () => {
    await Promise.allSettled([...open].map((undo) => undo()));
    process.exit(1);
  });
}

/** A folder that is removed when the test `t` has ended. */
export function scratch(t) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ryemill-e2e-'));
  atEnd(t, () => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** An environment in which Ryemill touches nothing but `folder`, whatever the developer's own says. */
export async function environment(folder, more = {}) {
  const own = /^(APP_ENV|HOST|PORT|BROKER_URL|REDIS_URL|API_.*|JOBS_DIR|DATA_DIR|FILES_URL|MAIL.*|DATABASE_.*|SECRET_.*|LOG_.*|WORKER_.*|WATCH|LEASE|SHUTDOWN_GRACE|RYEMILL_.*)$/;
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !own.test(name)));
  const blank = Object.fromEntries(
    ['BROKER_URL', 'REDIS_URL', 'API_KEYS', 'API_KEYS_FILE', 'FILES_URL', 'MAILER_URL', 'LOG_DIR'].map((name) => [name, '']),
  );
  return { ...env, ...blank, DATA_DIR: path.join(folder, 'data'), PORT: String(await freePort()), ...more };
}

async function freePort() {
  const server = net.createServer();
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  const { port } = server.address();
  await new Promise((closed) => server.close(closed));
  return port;
}

/** Runs a command to its end, without input. */
export function run(command, args, { env, timeout = 60_000 } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (data) => (stdout += data));
    child.stderr.on('data', (data) => (stderr += data));
    const timer = setTimeout(() => child.kill('SIGKILL'), timeout);
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, stdout, stderr });
    });
  });
}

/** Starts the binary; it is stopped when the test `t` has ended. */
export function start(t, args, env) {
  const child = spawn(binary, args, { cwd: root, env, stdio: ['ignore', 'ignore', 'pipe'] });
  let log = '';
  child.stderr.on('data', (data) => (log += data));
  const ended = new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal })));
  atEnd(t, async () => {
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), 40_000);
    await ended;
    clearTimeout(timer);
  });
  return { child, ended, log: () => log };
}

/** Asks `ask` until it answers something true. */
export async function until(what, ask, timeout = 30_000) {
  const end = Date.now() + timeout;
  let last;
  while (Date.now() < end) {
    try {
      const answer = await ask();
      if (answer) return answer;
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${what}: not within ${timeout} ms${last ? ` (${last.message})` : ''}`);
}

/** The API of a server. */
export class Client {
  constructor(port, key) {
    this.base = `http://127.0.0.1:${port}`;
    this.headers = key ? { authorization: `Bearer ${key}` } : {};
  }

  async call(method, path, body) {
    const response = await fetch(this.base + path, {
      method,
      headers: { ...this.headers, ...(body && { 'content-type': 'application/json' }) },
      body: body && JSON.stringify(body),
    });
    const text = await response.text();
    const value = text.startsWith('{') ? JSON.parse(text) : text;
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return value;
  }

  /** Once the server answers and workers have published their job types. */
  ready() {
    return until('a server with job types', async () => {
      const { job_types: types } = await this.call('GET', '/v1/job-types');
      return types.length > 0 && types;
    });
  }

  submit(name, payload, more = {}) {
    return this.call('POST', '/v1/jobs', { name, payload, ...more });
  }

  job(id) {
    return this.call('GET', `/v1/jobs/${id}`);
  }

  /** The job when it has ended. */
  async end(id, timeout = 60_000) {
    return until(`the end of ${id}`, async () => {
      const job = await this.call('GET', `/v1/jobs/${id}?wait=5s`);
      return ['succeeded', 'failed', 'cancelled'].includes(job.state) && job;
    }, timeout);
  }
}
