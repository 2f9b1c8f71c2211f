// Records what a real server answers into the Postman collection:
//
//     cargo build --release && npm ci --prefix tests/e2e && node tests/e2e/record_postman.mjs
//
// Run it after a change of the API or of the collection, and read the diff.
import fs from 'node:fs';
import { scratch } from './lib.mjs';
import { COLLECTION, collection, items, runCollection, startForPostman } from './postman.mjs';

// Stands for a test: what is to be done at its end.
let end;
const t = { after: (step) => (end = step) };
try {
  const api = await startForPostman(t, scratch(t));
  const json = collection();
  const { responses, failures } = await runCollection(json, api);
  if (failures.length > 0) throw new Error(`the collection does not pass, nothing is recorded:\n${failures.join('\n')}`);
  for (const item of items(json.item)) {
    const { code, status, headers, body } = responses.get(item.name);
    const language = headers.find(({ key }) => key.toLowerCase() === 'content-type')?.value.includes('json') ? 'json' : 'text';
    item.response = [{
      name: `${code} ${status}`,
      originalRequest: item.request,
      status,
      code,
      _postman_previewlanguage: language,
      header: headers.filter(({ key }) => key.toLowerCase() !== 'date'),
      cookie: [],
      body: language === 'json' ? JSON.stringify(JSON.parse(body), null, 2) : body,
    }];
  }
  fs.writeFileSync(COLLECTION, `${JSON.stringify(json, null, 2)}\n`);
  console.log(`${responses.size} responses recorded`);
} finally {
  await end();
}
