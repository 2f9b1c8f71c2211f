// The README's first command: it runs the shipped jobs through the HTTP API, and the files that it names hold what they
// should.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';
import { environment, root, run, scratch } from './lib.mjs';

test('the demo', async (t) => {
  const env = await environment(scratch(t));
  const demo = await run('cargo', ['run', '--release', '--', 'demo'], { env, timeout: 900_000 });
  assert.equal(demo.code, 0, demo.stdout + demo.stderr);
  const named = demo.stdout.match(/\S+\.(csv|html|eml|txt)$/gm).map((file) => path.resolve(root, file));
  const texts = (ending) => named.filter((file) => file.endsWith(ending)).map((file) => fs.readFileSync(file, 'utf8'));

  await t.test('has run the three jobs', () => {
    for (const name of ['email', 'report', 'long_task']) assert.match(demo.stdout, new RegExp(`^${name} .*succeeded`, 'm'));
    assert.match(demo.stdout, /\b0 did not succeed$/m);
  });

  await t.test('the CSV has every month of 2025 and the sum of the orders', () => {
    const csv = texts('report.csv').find((text) => text.startsWith('month,'));
    const [head, ...rows] = csv.trim().split(/\r?\n/).map((line) => line.split(','));
    assert.deepEqual(head, ['month', 'orders', 'quantity', 'revenue_eur']);
    const months = Array.from({ length: 12 }, (_, month) => `2025-${String(month + 1).padStart(2, '0')}`);
    assert.deepEqual(rows.map(([month]) => month), months);
    const sum = (column) => rows.reduce((sum, row) => sum + Math.round(Number(row[column]) * 100), 0) / 100;
    // From the sample's SQL, summed up by hand once; it makes the same orders on every machine.
    assert.deepEqual([sum(1), sum(2), sum(3)], [300, 797, 99890.2]);
  });

  await t.test('the page has the table, and bars as long as their values', () => {
    const page = texts('report.html').find((text) => text.includes('<h1>Orders by month</h1>'));
    assert.match(page, /99,890\.20 EUR/);
    const tick = [...page.matchAll(/class="tick" x="([\d.]+)"[^>]*>([\d,]+)</g)].map(([, x, label]) => [
      Number(x),
      Number(label.replaceAll(',', '')),
    ]);
    assert.equal(tick[0][1], 0);
    const [[x0], [x1, value]] = [tick[0], tick.at(-1)];
    const bars = [...page.matchAll(/class="bar" x="([\d.]+)"[^>]*width="([\d.]+)"[^>]*\/>\s*<text[^>]*>([\d,.]+)</g)];
    assert.equal(bars.length, 12);
    for (const [, x, width, label] of bars) {
      assert.equal(Number(x), x0);
      const right = (Number(label.replaceAll(',', '')) / value) * (x1 - x0);
      assert.ok(Math.abs(Number(width) - right) < 0.1, `${label} is ${width} long and should be ${right}`);
    }
  });

  await t.test('the mails have text, HTML and attachments', () => {
    const mails = texts('.eml');
    const welcome = mails.find((mail) => mail.includes('Subject: Welcome to Ryemill'));
    assert.match(welcome, /^To: ada@example\.com$/m);
    assert.match(welcome, /Content-Type: text\/plain[\s\S]*Hello Ada,[\s\S]*Content-Type: text\/html[\s\S]*>Hello Ada,<\/p>/);
    assert.match(welcome, /filename="hello\.txt"[\s\S]*This text came with the job's payload\./);
    // The report's child.
    const summary = mails.find((mail) => mail.includes('Subject: Orders by product, 2026-01-01 to 2026-06-30'));
    assert.match(summary, /filename="?report\.csv"?/);
  });
});
