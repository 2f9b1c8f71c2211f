// The shipped jobs, beyond their examples.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';
import { Client, environment, scratch, start, until } from './lib.mjs';

test('the shipped jobs', async (t) => {
  const env = await environment(scratch(t));
  start(t, ['dev'], env);
  const api = new Client(env.PORT);
  await api.ready();
  const done = async (name, payload) => api.end((await api.submit(name, payload)).id);
  const file = (job, name) => api.call('GET', `/v1/jobs/${job.id}/files/${name}`);
  const mails = () => {
    const outbox = path.join(env.DATA_DIR, 'outbox');
    return fs.readdirSync(outbox).map((name) => fs.readFileSync(path.join(outbox, name), 'utf8'));
  };

  await t.test('report: sums by region and by product agree with the orders', async () => {
    const period = { from: '2025-01-01', to: '2026-12-31' };
    const byRegion = await done('report', { ...period, group_by: 'region' });
    assert.equal(
      await file(byRegion, 'report.csv'),
      'region,orders,quantity,revenue_eur\nNorth,257,686,95250.21\nWest,128,368,46917.99\n' +
        'South,161,412,43937.99\nEast,54,146,15875.72\n',
    );
    const byProduct = await done('report', { ...period, group_by: 'product' });
    for (const { result } of [byRegion, byProduct]) {
      assert.deepEqual([result.orders, result.quantity, result.revenue_cents], [600, 1612, 20198191]);
    }
  });

  await t.test('report: first and last day of the period count', async () => {
    const one = await done('report', { from: '2025-01-01', to: '2025-01-01' });
    assert.equal(one.result.orders, 1);
    const last = await done('report', { from: '2026-12-30', to: '2026-12-30' });
    assert.equal(last.result.orders, 1);
  });

  await t.test('report: an empty period is a report that says so', async () => {
    const job = await done('report', { from: '2030-01-01', to: '2030-12-31', group_by: 'month' });
    assert.equal(job.state, 'succeeded');
    assert.equal(job.result.orders, 0);
    const page = await file(job, 'report.html');
    assert.match(page, /No orders in this period\./);
    assert.doesNotMatch(page, /<svg|<table/);
  });

  await t.test('report: a period that ends before it begins fails at once', async () => {
    const job = await done('report', { from: '2026-01-01', to: '2025-01-01' });
    assert.deepEqual([job.state, job.attempt, job.error.kind], ['failed', 1, 'failed_by_script']);
  });

  await t.test('report: the summary is mailed by a child', async () => {
    const job = await done('report', { from: '2026-01-01', to: '2026-01-31', mail_to: ['ada@example.com', 'grace@example.com'] });
    const child = await api.end(job.result.email_job);
    assert.deepEqual([child.name, child.state, child.parent_id], ['email', 'succeeded', job.id]);
    assert.equal(child.request_id, job.request_id);
    const mail = mails().find((mail) => mail.includes(child.result.message_id));
    assert.match(mail, /^To: ada@example\.com, grace@example\.com\r$/m);
    assert.match(mail, /Revenue {3}6,747\.62 EUR/);
  });

  await t.test('email: what comes in from outside is escaped in HTML', async () => {
    const job = await done('email', { to: 'ada@example.com', subject: 'Escaped', data: { name: '<script>x</script>' } });
    const mail = mails().find((mail) => mail.includes(job.result.message_id));
    assert.match(mail, /Hello &lt;script&gt;/);
    assert.doesNotMatch(mail.slice(mail.indexOf('text/html')), /<script>/);
  });

  await t.test('email: given text alone makes a mail without HTML', async () => {
    const job = await done('email', { to: 'ada@example.com', subject: 'Plain', text: 'Just this.' });
    const mail = mails().find((mail) => mail.includes(job.result.message_id));
    assert.match(mail, /Just this\./);
    assert.doesNotMatch(mail, /text\/html/);
  });

  await t.test('email: two attachments of one name are refused', async () => {
    const attachments = [{ name: 'a.txt', content: '1' }, { name: 'a.txt', content: '2' }];
    const job = await done('email', { to: 'ada@example.com', subject: 'Twice', attachments });
    assert.deepEqual([job.state, job.attempt, job.error.kind], ['failed', 1, 'failed_by_script']);
  });

  await t.test('email: a template that does not exist fails with a near name', async () => {
    const job = await done('email', { to: 'ada@example.com', subject: 'None', template: 'welcom' });
    assert.deepEqual([job.state, job.attempt], ['failed', 1]);
    assert.match(job.error.message, /did you mean `welcome\.txt`/);
  });

  await t.test('long_task: can be cancelled at any step', async () => {
    const { id } = await api.submit('long_task', { steps: 10_000, step_time: '50ms' });
    await until('progress', async () => (await api.job(id)).progress?.percent > 0);
    await api.call('POST', `/v1/jobs/${id}/cancel`);
    const job = await api.end(id);
    assert.equal(job.state, 'cancelled');
    assert.ok(job.progress.percent < 50);
  });

  await t.test('long_task: what cannot fit its timeout is refused at once', async () => {
    const job = await done('long_task', { steps: 10_000, step_time: '1s' });
    assert.deepEqual([job.state, job.attempt, job.error.kind], ['failed', 1, 'failed_by_script']);
  });
});
