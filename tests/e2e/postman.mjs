// Runs the Postman collection with newman against a real server. For the test and for recording.
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { Client, environment, root, run, binary, start } from './lib.mjs';

const newman = createRequire(import.meta.url)('newman');

export const COLLECTION = path.join(root, 'postman/ryemill.postman_collection.json');
const ENVIRONMENT = path.join(root, 'postman/local.postman_environment.json');

export function collection() {
  return JSON.parse(fs.readFileSync(COLLECTION, 'utf8'));
}

/** All requests of a collection's folders. */
export function items(list) {
  return list.flatMap((item) => (item.item ? items(item.item) : [item]));
}

/** Server and worker with an API key, for the time of the test `t`. */
export async function startForPostman(t, folder) {
  const made = await run(binary, ['keys', 'new', '--id', 'postman', '--scopes', 'admin'], { env: process.env });
  if (made.code !== 0) throw new Error(made.stderr);
  const [, key] = made.stdout.match(/^ +(rm_postman_\S+)$/m);
  const [, entry] = made.stdout.match(/^ +(postman:\S+)$/m);
  const env = await environment(folder, { API_KEYS: entry });
  const dev = start(t, ['dev'], env);
  const api = new Client(env.PORT, key);
  api.key = key;
  await Promise.race([
    api.ready(),
    dev.ended.then(({ code, signal }) => {
      throw new Error(`the server ended with ${code ?? signal}: ${dev.log()}`);
    }),
  ]);
  return api;
}

/** What newman made of each request, by name. */
export async function runCollection(json, api) {
  const summary = await new Promise((resolve, reject) => {
    newman.run(
      {
        collection: structuredClone(json),
        environment: JSON.parse(fs.readFileSync(ENVIRONMENT, 'utf8')),
        envVar: [{ key: 'base_url', value: api.base }, { key: 'api_key', value: api.key }],
        timeoutRequest: 60_000,
        reporters: [],
      },
      (error, summary) => (error ? reject(error) : resolve(summary)),
    );
  });
  const responses = new Map();
  // What a script sends before its request is listed under the same name; the request itself comes last.
  for (const { item, response } of summary.run.executions) {
    responses.set(item.name, {
      code: response.code,
      status: response.status,
      headers: response.headers.all().map(({ key, value }) => ({ key, value })),
      body: response.stream ? response.stream.toString() : '',
    });
  }
  const failures = summary.run.failures.map(({ source, error }) => `${source?.name}: ${error.test ?? ''} ${error.message}`);
  return { responses, failures, assertions: summary.run.stats.assertions.total };
}
