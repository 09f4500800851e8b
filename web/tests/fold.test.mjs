import assert from 'node:assert/strict';
import { test } from 'node:test';

import { begin, fold, LOG_LINES, newer } from '../progress_web/client/fold.js';
import { decode } from '../progress_web/client/frame.js';
import { event, operation } from './fakes.mjs';

const after = (events, state = begin()) => events.reduce(fold, state);
const snapshot = (changes, more) => {
  const data = operation(changes);
  return event('snapshot', data.events, data, more);
};

test('a snapshot is taken whole', () => {
  const state = after([snapshot({ events: 3, progress: { percent: 10 } })]);
  assert.equal(state.operation.progress.percent, 10);
  assert.equal(state.n, 3);
  assert.equal(state.position, '3-0');
});

test('the newest progress and status stand', () => {
  const state = after([
    snapshot(),
    event('progress', 4, { percent: 40 }),
    event('status', 5, { status: 'stalled' }),
    event('progress', 6, { percent: 60 }),
  ]);
  assert.deepEqual(state.operation.progress, { percent: 60 });
  assert.equal(state.operation.status, 'stalled');
  assert.equal(state.operation.events, 6);
  assert.equal(state.position, '6-0');
});

test('a repeat changes nothing at all', () => {
  const state = after([snapshot(), event('progress', 4, { percent: 40 }), event('log', 5, { message: 'x' })]);
  for (const repeat of [event('progress', 4, { percent: 1 }), event('log', 5, { message: 'x' }), snapshot(), event('status', 2, {})]) {
    assert.equal(fold(state, repeat), state);
  }
});

test('control frames change nothing', () => {
  const state = after([snapshot()]);
  assert.equal(fold(state, event('ping', 0, {})), state);
  assert.equal(fold(state, event('bookmark', 9, { live: true })), state);
  assert.equal(fold(state, event('reconnect', 0, { reason: 'draining' })), state);
});

test('a custom event moves the position only', () => {
  const state = after([snapshot(), event('pipeline_progress', 4, { percent: 99 })]);
  assert.equal(state.position, '4-0');
  assert.equal(state.operation.progress, null);
});

test('no state is changed in place', () => {
  const before = Object.freeze(after([snapshot()]));
  Object.freeze(before.operation);
  Object.freeze(before.log);
  for (const type of ['progress', 'status', 'log', 'end', 'custom']) assert.notEqual(fold(before, event(type, 9, {})), before);
});

test('running and cancelling leave their marks', () => {
  const fresh = snapshot({ status: 'pending', started_at: null, events: 1 });
  const running = after([fresh, event('status', 2, { status: 'running' })]);
  assert.match(running.operation.started_at, /^2025-.*Z$/);
  const cancelling = fold(running, event('status', 3, { status: 'cancelling', reason: 'enough' }));
  assert.equal(cancelling.operation.cancel_requested, true);
});

test('a cancel tells who asked, why, and until when it is heeded', () => {
  const asked = (data) => after([snapshot(), event('status', 4, { status: 'cancelling', ...data })]).operation.cancel;
  assert.deepEqual(asked({ reason: 'enough', by: 'ann', force_cancel_after_s: 30 }), {
    reason: 'enough', by: 'ann', requested_at: '2025-11-21T02:00:00.004Z', overdue_at: '2025-11-21T02:00:30.004Z',
  });
  for (const odd of [{}, { reason: 7, by: [], force_cancel_after_s: 'soon' }, { force_cancel_after_s: 1e300 }]) {
    assert.deepEqual(asked(odd), {
      reason: null, by: null, requested_at: '2025-11-21T02:00:00.004Z', overdue_at: '2025-11-21T02:00:00.004Z',
    });
  }
});

test('a new attempt begins anew, also in the replay of what is known from a list', () => {
  const events = [
    event('status', 1, { status: 'running' }),
    event('progress', 2, { percent: 40 }),
    event('status', 3, { status: 'stalled' }),
    event('status', 4, { status: 'running', attempt: 2, worker: 'host-8:77' }),
  ];
  for (const known of [null, operation({ attempt: 2, worker: 'host-8:77', progress: null, events: 4 })]) {
    const { operation: now } = after(events, begin(known));
    assert.deepEqual([now.status, now.attempt, now.worker, now.progress], ['running', 2, 'host-8:77', null]);
  }
});

test('the end brings status, result and error', () => {
  const state = after([snapshot(), event('end', 4, { status: 'failed', error: { type: 'worker-lost' } })]);
  assert.equal(state.ended, true);
  assert.equal(state.operation.done, true);
  assert.equal(state.operation.status, 'failed');
  assert.deepEqual(state.operation.error, { type: 'worker-lost' });
  assert.equal(state.operation.result, null);
});

test('the end after a finished snapshot is no news but ends', () => {
  const done = after([snapshot({ done: true, status: 'succeeded', result: 7 }, { position: null })]);
  assert.equal(done.position, null); // cut off here, the end must come again
  assert.equal(done.ended, false);
  const ended = fold(done, event('end', 3, { status: 'succeeded', result: 7 }));
  assert.equal(ended.ended, true);
  assert.equal(ended.operation, done.operation);
});

test('the log is a bounded tail', () => {
  const lines = Array.from({ length: LOG_LINES + 5 }, (_, i) => event('log', i + 1, { level: 'info', message: `line ${i + 1}` }));
  const state = after(lines);
  assert.equal(state.log.length, LOG_LINES);
  assert.equal(state.log[0].message, 'line 6');
  assert.equal(state.logged, LOG_LINES + 5);
});

test('lines older than the snapshot are news, once', () => {
  const line = event('log', 2, { message: 'early' });
  const state = after([snapshot({ events: 5 }), line, line]);
  assert.deepEqual(state.log.map(({ message }) => message), ['early']);
  assert.equal(state.position, '5-0');
});

test('a replay from the start begins at nothing', () => {
  const state = after([event('status', 1, { status: 'pending' }), event('progress', 2, { percent: 5 })]);
  assert.equal(state.operation.id, 'import-42');
  assert.equal(state.operation.progress.percent, 5);
});

test('what was known from a list does not make the replay a repeat', () => {
  const state = after([event('status', 1, { status: 'running' })], begin(operation({ events: 9, title: 'Known' })));
  assert.equal(state.n, 1);
  assert.equal(state.operation.title, 'Known');
});

test('a reset is taken even when it goes back, and shows as a gap in the log', () => {
  const before = after([snapshot({ events: 8 }), event('log', 9, { message: 'old' })]);
  const reset = fold(before, snapshot({ events: 2, progress: { percent: 1 } }, { reset: 'lost' }));
  assert.equal(reset.n, 2);
  assert.equal(reset.position, '2-0');
  const state = fold(reset, event('log', 3, { message: 'new' }));
  assert.deepEqual(state.log.map(({ level, message }) => [level, message]), [['info', 'old'], ['gap', 'lost'], ['info', 'new']]);
});

test('an operation made anew under the same id replaces the old', () => {
  const old = after([snapshot({ events: 8 }), event('end', 9, { status: 'failed' })]);
  const state = fold(old, snapshot({ events: 1, created_at: '2026-11-21T03:00:00.000Z' }));
  assert.equal(state.n, 1);
  assert.equal(state.ended, false);
});

test('of two sightings the newer counts', () => {
  const [early, late] = [operation({ events: 3 }), operation({ events: 4 })];
  const anew = operation({ events: 1, created_at: '2026-11-22T00:00:00.000Z' });
  assert.equal(newer(early, late), late);
  assert.equal(newer(late, anew), anew);
  assert.equal(newer(early, { ...early }), early);
  assert.equal(newer(null, early), early);
});

test('an envelope is decoded, and anything else survived', () => {
  const text = JSON.stringify({ operation: 'a', n: 2, type: 'log', time: 5, data: { message: '\u2028\n' } });
  assert.deepEqual(decode('log', text, '7-0'), {
    type: 'log', position: '7-0', operation: 'a', n: 2, time: 5, data: { message: '\u2028\n' }, reset: null,
  });
  assert.equal(decode('snapshot', JSON.stringify({ operation: 'a', n: 2, time: 5, reset: 'lost', data: {} }), '').reset, 'lost');
  assert.equal(decode('reconnect', '{"reason":"draining"}', '').data.reason, 'draining');
  for (const text of ['', 'null', '3', '{', '{"n":"x"}', '{"n":1.5}', '{"n":1,"time":1e300}']) assert.equal(decode('log', text, ''), null);
});
