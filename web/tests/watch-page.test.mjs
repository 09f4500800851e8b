import assert from 'node:assert/strict';
import { test } from 'node:test';

import { operation } from './fakes.mjs';
import { query, send, watching } from './watching.mjs';

test('leaving the page closes it, coming back reopens it where it was', () => {
  const { watch, page, EventSource } = watching();
  EventSource.last.accept();
  send(EventSource, 'snapshot', 3, operation());
  page.fire('pagehide');
  assert.equal(EventSource.open.length, 0);
  assert.deepEqual([watch.connection.state, watch.connection.code], ['closed', 'paused']);
  page.fire('pageshow');
  assert.equal(EventSource.open.length, 1);
  assert.equal(query(EventSource).last_event_id, '3-0');
});

test('a page that was frozen finds out on its return', () => {
  const { page, clock, EventSource } = watching();
  EventSource.last.accept();
  page.see('hidden');
  page.see('visible');
  assert.equal(EventSource.made.length, 1); // it was never away
  clock.pass(20_000); // the watchdog's time has not come, but a ping is overdue
  page.see('hidden');
  page.see('visible');
  assert.equal(EventSource.made.length, 2);
});

test('a new network means a new connection', () => {
  const { page, EventSource } = watching();
  EventSource.last.accept();
  page.fire('online');
  assert.equal(EventSource.made.length, 2);
  assert.equal(EventSource.open.length, 1);
});

test('if asked to, it holds no connection while nobody looks', () => {
  const { page, EventSource } = watching({ pauseWhenHidden: true });
  page.see('hidden');
  page.fire('online');
  assert.equal(EventSource.open.length, 0);
  page.see('visible');
  assert.equal(EventSource.open.length, 1);
});
