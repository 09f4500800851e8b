import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Problem } from '../progress_web/client/operations.js';
import { operation, settle } from './fakes.mjs';
import { query, send, watching } from './watching.mjs';

test('it asks for pings, and begins without a position', () => {
  const { EventSource } = watching();
  assert.equal(EventSource.last.url.pathname, '/v1/operations/import-42/stream');
  assert.deepEqual(query(EventSource), { ping: 'event' });
});

test('the start and the pace can be chosen', () => {
  const { EventSource } = watching({ fromStart: true, intervalMs: 250 });
  assert.deepEqual(query(EventSource), { ping: 'event', interval_ms: '250', from: 'start' });
});

test('an event makes it live and is folded in', () => {
  const { watch, EventSource, states } = watching();
  EventSource.last.accept();
  assert.equal(watch.connection.state, 'connecting');
  send(EventSource, 'snapshot', 3, operation());
  send(EventSource, 'progress', 4, { percent: 40 });
  assert.equal(watch.state.operation.progress.percent, 40);
  assert.deepEqual(states, ['connecting', 'live']);
});

test('a quiet line is live once it has outlived a rejection', () => {
  const { watch, clock, EventSource } = watching();
  EventSource.last.accept();
  clock.pass(300);
  assert.equal(watch.connection.state, 'live');
});

test('a rejection is never called live, and its reason stays', () => {
  const { watch, clock, EventSource, states } = watching();
  for (let i = 0; i < 3; i++) {
    EventSource.last.accept();
    EventSource.last.send('reconnect', { reason: 'at-capacity' });
    EventSource.last.lose();
    clock.pass(1500);
  }
  assert.deepEqual(states, ['connecting', 'reconnecting']);
  assert.equal(watch.connection.code, 'at-capacity');
  assert.equal(EventSource.made.length, 1); // the browser comes back by itself
});

test('the end closes it for good', () => {
  const { watch, clock, page, EventSource } = watching();
  EventSource.last.accept();
  send(EventSource, 'snapshot', 3, operation());
  send(EventSource, 'end', 4, { status: 'succeeded', result: 1 });
  assert.equal(watch.connection.state, 'ended');
  assert.equal(watch.state.operation.result, 1);
  page.fire('online');
  watch.open();
  assert.equal(EventSource.open.length, 0);
  assert.equal(EventSource.made.length, 1);
  assert.equal(clock.waiting, 0);
});

test('replaced by a newer one, it stays away', () => {
  const { watch, clock, EventSource } = watching();
  EventSource.last.accept();
  send(EventSource, 'snapshot', 3, operation());
  EventSource.last.send('replaced', {});
  assert.deepEqual([watch.connection.state, watch.connection.code], ['rejected', 'replaced']);
  assert.equal(watch.state.position, '3-0');
  assert.equal(EventSource.open.length, 0);
  assert.equal(clock.waiting, 0);
});

test('given up on, it comes back with its position', async () => {
  const { watch, clock, EventSource } = watching();
  EventSource.last.accept();
  send(EventSource, 'snapshot', 3, operation());
  EventSource.last.giveUp();
  await settle();
  assert.equal(watch.connection.state, 'reconnecting');
  clock.pass(500);
  assert.equal(EventSource.made.length, 2);
  assert.equal(query(EventSource).last_event_id, '3-0');
  EventSource.last.accept();
  send(EventSource, 'progress', 4, { percent: 9 });
  assert.equal(watch.connection.state, 'live');
});

test('the waits between tries double, and are as long as the server asks', async () => {
  const { clock, EventSource, answers } = watching();
  const away = new Problem('unreachable', 'away');
  answers.push(away, away, new Problem('rate-limited', 'later', { status: 429, retryAfterMs: 9_000 }));
  for (const ms of [500, 1_000, 9_000]) {
    EventSource.last.giveUp();
    await settle();
    const before = EventSource.made.length;
    clock.pass(ms - 1);
    assert.equal(EventSource.made.length, before);
    clock.pass(1);
    assert.equal(EventSource.made.length, before + 1);
  }
});

test('a lasting rejection is told and not tried again', async () => {
  const { watch, clock, page, EventSource, answers } = watching();
  answers.push(new Problem('gone', 'it was deleted', { status: 410 }));
  EventSource.last.giveUp();
  await settle();
  assert.deepEqual([watch.connection.state, watch.connection.code, watch.connection.detail], ['rejected', 'gone', 'it was deleted']);
  page.fire('online');
  clock.pass(1e6);
  assert.equal(EventSource.made.length, 1);
});

test('given up on again when the operation is done, it has ended', async () => {
  const { watch, clock, EventSource, answers } = watching();
  const done = operation({ events: 9, done: true, status: 'succeeded', result: 5 });
  answers.push(done, done);
  EventSource.last.giveUp();
  await settle();
  assert.equal(watch.connection.state, 'reconnecting'); // its last lines may still be had
  clock.pass(500);
  EventSource.last.giveUp();
  await settle();
  assert.equal(watch.connection.state, 'ended');
  assert.equal(watch.state.operation.result, 5);
});

test('silence means dead; pings are life', () => {
  const { watch, clock, EventSource } = watching();
  EventSource.last.accept();
  send(EventSource, 'snapshot', 3, operation());
  for (let i = 0; i < 4; i++) {
    clock.pass(15_000);
    EventSource.last.send('ping', {});
  }
  assert.equal(EventSource.made.length, 1);
  clock.pass(37_500);
  assert.deepEqual([watch.connection.state, watch.connection.code], ['reconnecting', 'silent']);
  clock.pass(500);
  assert.equal(EventSource.made.length, 2);
  assert.equal(query(EventSource).last_event_id, '3-0');
  assert.equal(EventSource.open.length, 1);
});

test('closed, it stays closed, whatever answers come late', async () => {
  const { watch, page, clock, EventSource } = watching();
  EventSource.last.giveUp();
  watch.close();
  await settle();
  page.fire('pageshow');
  clock.pass(1e6);
  assert.equal(EventSource.open.length, 0);
  assert.equal(watch.connection.state, 'closed');
  watch.open();
  assert.equal(EventSource.open.length, 1);
});
