import assert from 'node:assert/strict';
import { test } from 'node:test';

import { MOST_CHILDREN } from '../progress_web/client/children.js';
import { begin, fold } from '../progress_web/client/fold.js';
import { decode } from '../progress_web/client/frame.js';
import { Operations } from '../progress_web/client/operations.js';
import { summaryText } from '../progress_web/dashboard/children.js';
import { Entry } from '../progress_web/dashboard/entry.js';
import { event, operation } from './fakes.mjs';
import { query, send, watching } from './watching.mjs';

const summary = (changes = {}) => ({ total: 2, done: 1, failed: 0, cancelled: 0, running: 1, percent: 60, ...changes });
const frame = (changes, children = []) => {
  const envelope = { operation: 'import-42', type: 'children', time: 5, data: { ...summary(changes), operations: children } };
  return decode('children', JSON.stringify(envelope), '3-0');
};
const snapshot = (changes) => event('snapshot', 3, operation(changes));
const after = (events, state = begin()) => events.reduce(fold, state);
const note = (n, id) => event('child', n, { operation: id, kind: 'photo', title: null, weight: 1 });

test('what is told of children moves no position, and is no event', () => {
  const before = after([snapshot()]);
  const state = fold(before, frame());
  assert.deepEqual([state.n, state.position, state.operation.events], [3, '3-0', 3]);
  assert.deepEqual(state.operation.children, summary());
  assert.equal(before.operation.children, null, 'nothing is changed in place');
});

test('before anything is known of the operation it tells of the children alone', () => {
  const state = fold(begin(), frame({}, [{ id: 'a' }]));
  assert.equal(state.operation, null);
  assert.deepEqual(state.children, [{ id: 'a' }]);
});

test('whatever a worker tells instead of progress, the percentage is its children\'s', () => {
  for (const odd of [null, {}, { message: 'm' }, { percent: null }, { current: 3, total: 0 }]) {
    const { operation: shown } = after([snapshot(), frame(), event('progress', 4, odd)]);
    assert.equal(shown.progress.percent, 60);
    assert.equal(shown.progress.rolled_up, true);
  }
  for (const own of [{ percent: 0 }, { current: 0, total: 3 }]) {
    assert.deepEqual(after([snapshot(), event('progress', 4, own), frame()]).operation.progress, own);
  }
});

test('a part of the children changes no percentage', () => {
  const { operation: shown } = after([snapshot(), frame(), frame({ total: 1, percent: null, partial: true })]);
  assert.equal(shown.children.partial, true);
  assert.equal(shown.progress.percent, 60);
  assert.equal(after([snapshot(), frame({ percent: null, partial: true })]).operation.progress, null);
});

test('another attempt forgets its own percentage, not its children\'s', () => {
  const state = after([snapshot(), frame(), event('progress', 4, { percent: 90 }), event('status', 5, { status: 'running', attempt: 2 })]);
  assert.equal(state.operation.progress.percent, 60);
});

test('children that events told of are bounded, and each is one', () => {
  const notes = Array.from({ length: MOST_CHILDREN + 5 }, (_, i) => note(4 + i, `c${i}`));
  const state = after([snapshot(), ...notes, note(500, 'c50')]);
  assert.equal(state.children.length, MOST_CHILDREN);
  assert.equal(state.children[0].id, 'c5');
  assert.equal(state.n, 500);
  for (const data of [null, 3, {}]) assert.deepEqual(fold(state, event('child', 501, data)).children, state.children);
});

test('an operation made anew has none of the old one\'s children', () => {
  const state = after([snapshot(), note(4, 'a'), event('snapshot', 1, operation({ events: 1, created_at: '2026-11-22T00:00:00.000Z' }))]);
  assert.deepEqual(state.children, []);
});

test('calls tell of the children, also one that is behind the stream otherwise', () => {
  const entry = new Entry(operation({ children: summary({ percent: 10 }) }), 0);
  const child = operation({ id: 'a', progress: { percent: 40, message: 'at 40' } });
  entry.hear(event('progress', 4, { message: 'cropping' }));
  assert.deepEqual([entry.operation.progress.message, entry.operation.progress.percent], ['cropping', 10]);
  entry.see(operation({ events: 3, children: { ...summary({ percent: 70 }), operations: [child] } }), 1);
  assert.deepEqual([entry.operation.progress.message, entry.operation.progress.percent], ['cropping', 70]);
  const brief = { id: 'a', kind: 'import', title: 'Import', status: 'running', percent: 40, weight: 1, message: 'at 40' };
  assert.deepEqual(entry.state.children, [brief]);
  entry.see(operation({ events: 3, children: summary({ percent: 80 }) }), 2);
  assert.deepEqual([entry.operation.children.percent, entry.state.children], [80, [brief]], 'a list has no children');
  entry.see(operation({ events: 4, progress: { message: 'cropping' }, children: null }), 3);
  assert.equal(entry.operation.children, null);
});

test('a stream tells of children where that is asked for', () => {
  const operations = new Operations({ base: 'http://broker.test/' });
  assert.equal(new URL(operations.streamUrl('a', { children: true })).searchParams.get('children'), 'true');
  assert.equal(new URL(operations.streamUrl('a')).searchParams.get('children'), null);
  const { EventSource, watch } = watching({ children: true });
  assert.equal(query(EventSource).children, 'true');
  EventSource.last.accept();
  send(EventSource, 'snapshot', 3, operation());
  EventSource.last.send('children', { operation: 'import-42', type: 'children', time: 5, data: { ...summary(), operations: [] } }, '3-0');
  assert.equal(watch.state.operation.progress.percent, 60);
  watch.close();
});

test('the children in words', () => {
  assert.equal(summaryText(summary()), '1 of 2 done, 1 running');
  assert.equal(summaryText(summary({ total: 1200, done: 3, failed: 2, cancelled: 1, running: 0 })), '3 of 1,200 done, 2 failed, 1 cancelled');
});
