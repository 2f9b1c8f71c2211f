// The Postman collection against a real server: every test in it passes, and every saved response still is what the
// server answers.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';
import { root, scratch } from './lib.mjs';
import { collection, items, runCollection, startForPostman } from './postman.mjs';

test('newman runs the collection', async (t) => {
  const api = await startForPostman(t, scratch(t));
  const { responses, failures, assertions } = await runCollection(collection(), api);

  await t.test('every test of the collection passes', () => {
    assert.deepEqual(failures, []);
    assert.ok(assertions > items(collection().item).length, `${assertions} assertions ran`);
  });

  await t.test('every route has a request', () => {
    // A Rust test holds the page against the router.
    const page = fs.readFileSync(path.join(root, 'docs/http.md'), 'utf8');
    const table = page.split('\n').filter((line) => /^\| `[A-Z]+ \//.test(line));
    const routes = table.flatMap((line) => [...line.matchAll(/`([A-Z]+ \/[^`]*)`/g)].map(([, route]) => route));
    assert.ok(routes.length > 15);
    const requests = items(collection().item).map(({ request }) => `${request.method} /${request.url.path.join('/')}`);
    for (const route of routes) {
      const pattern = new RegExp(`^${route.replaceAll(/\{\w+\}/g, '[^/]+')}$`);
      assert.ok(requests.some((request) => pattern.test(request)), `${route} has none`);
    }
  });

  for (const [name, response] of responses) {
    await t.test(`the saved response is true: ${name}`, () => {
      const [saved] = items(collection().item).find((item) => item.name === name).response;
      assert.ok(saved, 'it has one; record it with tests/e2e/record_postman.mjs');
      assert.equal(response.code, saved.code);
      const type = (headers) => headers.find(({ key }) => key.toLowerCase() === 'content-type')?.value;
      assert.equal(type(response.headers), type(saved.header));
      if (type(response.headers)?.includes('json')) {
        assertAlike(JSON.parse(response.body), JSON.parse(saved.body), 'the answer');
      }
    });
  }
});

/** Asserts that two values have the same fields. What is in them differs from run to run, and so do what is null and
 * what is empty. */
function assertAlike(value, saved, where) {
  if (value === null || saved === null) return;
  assert.equal(kind(value), kind(saved), where);
  if (Array.isArray(value)) {
    if (value.length > 0 && saved.length > 0) assertAlike(value[0], saved[0], `${where}[0]`);
  } else if (kind(value) === 'object') {
    assert.deepEqual(Object.keys(value), Object.keys(saved), where);
    for (const key of Object.keys(value)) assertAlike(value[key], saved[key], `${where}.${key}`);
  }
}

function kind(value) {
  return Array.isArray(value) ? 'array' : typeof value;
}
