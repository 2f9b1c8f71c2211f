// The Postman collection against a real server: every test in it passes, and every saved response still is what the
// server answers.
import assert from 'node:assert/strict';
import test from 'node:test';
import { scratch } from './lib.mjs';
import { collection, items, runCollection, startForPostman } from './postman.mjs';

test('newman runs the collection', async (t) => {
  const api = await startForPostman(t, scratch(t));
  const { executions, failures, assertions } = await runCollection(collection(), api);

  await t.test('every test of the collection passes', () => {
    assert.deepEqual(failures, []);
    assert.ok(assertions > items(collection().item).length, `${assertions} assertions ran`);
  });

  for (const { name, response } of executions) {
    await t.test(`the saved response is true: ${name}`, () => {
      const [saved] = items(collection().item).find((item) => item.name === name).response;
      assert.ok(saved, 'it has one; record it with tests/e2e/record_postman.mjs');
      assert.equal(response.code, saved.code);
      const type = (headers) => headers.find(({ key }) => key.toLowerCase() === 'content-type')?.value;
      assert.equal(type(response.headers), type(saved.header));
      if (type(response.headers)?.includes('json')) {
        assert.deepEqual(shape(JSON.parse(response.body)), shape(JSON.parse(saved.body)));
      }
    });
  }
});

/** The fields of a JSON value, without what is in them: ids and times differ from run to run. */
function shape(value) {
  if (Array.isArray(value)) return value.length > 0 ? [shape(value[0])] : [];
  if (value === null || typeof value !== 'object') return 'value';
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, shape(inner)]));
}
