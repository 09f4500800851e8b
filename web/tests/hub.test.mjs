import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Problem } from '../progress_web/client/operations.js';
import { operation, settle } from './fakes.mjs';
import { aHub } from './hubs.mjs';

test('however many windows there are, there is one stream, of what any of them wants', () => {
  const { clock, EventSource, aWindow, open, asked, query } = aHub();
  const windows = Array.from({ length: 8 }, aWindow);
  windows.forEach((each, i) => each.want([`own-${i}`, 'a', 'b']));
  open();
  assert.equal(EventSource.made.length, 1);
  assert.deepEqual(new Set(asked()), new Set(['a', 'b', ...windows.map((_, i) => `own-${i}`)]));
  assert.deepEqual(query(), { ping: 'event', interval_ms: '250', types: 'progress,status,child' });
  for (const each of windows) assert.equal(each.connection().state, 'live');
  windows.forEach((each, i) => each.want([`own-${i}`, 'a'])); // a few less is no reason to open it anew
  clock.pass(4_000);
  assert.equal(EventSource.made.length, 1);
});

test('each window is told of what it wants, and of log lines where it wants those', () => {
  const { aWindow, open, query, send, flush } = aHub();
  const [one, two] = [aWindow(), aWindow()];
  one.want(['a'], { logOf: 'a' });
  two.want(['a', 'b']);
  open();
  assert.equal(query().types, 'progress,status,child,log');
  send('a', 'snapshot', 3, operation({ id: 'a' }));
  send('b', 'snapshot', 3, operation({ id: 'b' }));
  send('a', 'log', 4, { message: 'hello' });
  send('nobody-s', 'progress', 9);
  flush();
  assert.deepEqual(one.events(), ['a snapshot 3', 'a log 4']);
  assert.deepEqual(two.events(), ['a snapshot 3', 'b snapshot 3']);
  assert.equal(one.messages.at(-1).events[0].position, null, 'the id is a cursor, and no position of the operation');
});

test('a window that comes later is told where things stand, without another stream', () => {
  const { EventSource, clock, aWindow, open, send, flush } = aHub();
  const [one, two] = [aWindow(), aWindow()];
  one.want(['a'], { logOf: 'a' });
  open();
  send('a', 'snapshot', 3, operation({ id: 'a' }));
  send('a', 'progress', 4, { percent: 40 });
  two.want(['a']);
  const [snapshot] = two.messages.flatMap(({ events }) => events);
  assert.deepEqual([snapshot.n, snapshot.data.progress.percent, snapshot.data.events], [4, 40, 4]);
  two.clear();
  two.want(['a'], { logOf: 'a' });
  flush();
  assert.deepEqual(two.events(), ['a snapshot 4'], 'so that it can tell which lines it lacks');
  clock.pass(4_000);
  assert.equal(EventSource.made.length, 1);
});

test('what is new is followed from a snapshot on, at most once a second; what was live stays so', () => {
  const { clock, EventSource, aWindow, open, asked, query } = aHub();
  const one = aWindow();
  one.want(['a']);
  open();
  for (let i = 0; i < 10; i++) {
    one.want(['a', `new-${i}`]);
    clock.pass(200);
    if (EventSource.last.readyState === 0) EventSource.last.accept();
  }
  assert.ok(EventSource.made.length <= 4);
  assert.equal(EventSource.open.length, 1);
  assert.deepEqual(asked()[0], 'a');
  assert.equal(query().last_event_id, undefined);
  assert.deepEqual(new Set(one.messages.map(({ connection }) => connection?.state)), new Set(['closed', 'connecting', 'live']));
});

test('a stream that is given up on is resumed from its cursor', async () => {
  const { clock, EventSource, aWindow, open, query, send, asked } = aHub();
  const one = aWindow();
  one.want(['a', 'b']);
  open();
  send('a', 'snapshot', 3, operation({ id: 'a' }));
  EventSource.last.giveUp();
  await settle();
  assert.equal(one.connection().state, 'reconnecting');
  clock.pass(500);
  assert.equal(query().last_event_id, 'c1');
  assert.deepEqual(asked(), ['a', 'b']);
  EventSource.last.accept();
  clock.pass(300);
  assert.equal(one.connection().state, 'live');
});

test('a bookmark moves the cursor, and is no event', async () => {
  const { clock, EventSource, aWindow, open, query, flush } = aHub();
  const one = aWindow();
  one.want(['a']);
  open();
  EventSource.last.send('bookmark', { operation: 'a', n: 100, type: 'bookmark', time: 5, data: { live: true } }, 'c9');
  EventSource.last.send('bookmark', { live: true }, 'c10');
  flush();
  assert.deepEqual(one.events(), []);
  EventSource.last.giveUp();
  await settle();
  clock.pass(500);
  assert.equal(query().last_event_id, 'c10');
});

test('silence means dead: it is noticed by pings that lack, or as soon as somebody comes back', () => {
  const { clock, EventSource, aWindow, open, query } = aHub();
  const one = aWindow();
  one.want(['a']);
  open();
  clock.pass(20_000);
  one.want(['a'], { back: 'visible' });
  assert.equal(EventSource.made.length, 2);
  assert.equal(query().last_event_id, 'c0');
  EventSource.last.accept();
  for (let i = 0; i < 7; i++) {
    one.want(['a']);
    clock.pass(5_000);
  }
  assert.ok(EventSource.made.length >= 3);
  assert.equal(EventSource.open.length, 1);
});

test('while the server is away it is asked less and less, but at once when somebody comes back', async () => {
  const { clock, EventSource, answers, aWindow } = aHub();
  const one = aWindow();
  one.want(['a']);
  clock.pass(100);
  for (const ms of [500, 1_000, 2_000, 4_000]) {
    answers.push(new Problem('unreachable', 'away'));
    EventSource.last.giveUp();
    await settle();
    one.want(['a']); // as it does all the time
    const before = EventSource.made.length;
    clock.pass(ms - 1);
    assert.equal(EventSource.made.length, before);
    clock.pass(1);
    assert.equal(EventSource.made.length, before + 1);
  }
  answers.push(new Problem('at-capacity', 'full', { status: 503, retryAfterMs: 60_000 }));
  EventSource.last.giveUp();
  await settle();
  assert.deepEqual([one.connection().state, one.connection().code], ['reconnecting', 'at-capacity']);
  const before = EventSource.made.length;
  one.want(['a'], { back: 'visible' });
  assert.equal(EventSource.made.length, before + 1);
});

test('what has ended is followed no more, and when nothing is left there is no stream', () => {
  const { clock, EventSource, aWindow, open, send, flush } = aHub();
  const one = aWindow();
  one.want(['a', 'b']);
  open();
  for (const id of ['a', 'b']) {
    send(id, 'snapshot', 3, operation({ id }));
    send(id, 'end', 4, { status: 'failed' });
  }
  flush();
  assert.deepEqual(one.events(), ['a snapshot 3', 'a end 4', 'b snapshot 3', 'b end 4']);
  assert.equal(EventSource.open.length, 0);
  assert.equal(one.connection().state, 'closed');
  one.want([]);
  one.want(['a']); // as the list it has is older than the end; or another one has the id now
  assert.deepEqual(one.missing(), ['a'], 'so it asks');
  clock.pass(10_000);
  assert.equal(EventSource.made.length, 1);
  one.want(['a']);
  clock.pass(25_000);
  one.want(['a']);
  clock.pass(1_000);
  assert.equal(EventSource.made.length, 2, 'later it is tried once more');
});

for (const [why, told, tell] of [
  ['it was deleted', 'gone', ({ EventSource }) => EventSource.last.send('missing', { operation: 'a', reason: 'gone' })],
  ['it was not found', 'missing', ({ EventSource }) => EventSource.last.send('missing', { operation: 'a', reason: 'not-found' })],
  ['nobody said why', 'missing', ({ EventSource, clock }) => {
    EventSource.last.send('operations', { operations: ['b'] }, 'c9');
    clock.pass(1_000);
  }],
]) {
  test(`what is there no more is told to those who want it: ${why}`, () => {
    const { EventSource, clock, aWindow, open } = aHub();
    const [one, two] = [aWindow(), aWindow()];
    one.want(['a', 'b']);
    two.want(['b']);
    open();
    tell({ EventSource, clock });
    assert.deepEqual([one[told](), two[told]()], [['a'], []]);
    assert.equal(EventSource.open.length, 1);
  });
}

test('what a stream does not name while lanes are away may come later, and is not missing', () => {
  const { EventSource, clock, aWindow, open, send, flush } = aHub();
  const one = aWindow();
  one.want(['a', 'b']);
  open();
  EventSource.last.send('operations', { operations: ['b'], lanes_away: [3] }, 'c9');
  clock.pass(10_000);
  assert.deepEqual(one.missing(), []);
  send('a', 'snapshot', 1);
  flush();
  assert.deepEqual(one.events(), ['a snapshot 1']);
  EventSource.last.send('operations', { operations: ['b'] }, 'c10');
  clock.pass(1_000);
  assert.deepEqual(one.missing(), ['a']);
});

for (const answer of [204, new Problem('not-found', 'no', { status: 404 }), new Problem('gone', 'no', { status: 410 })]) {
  test(`a server that has nothing to tell of any of them answers ${answer.status ?? answer}`, async () => {
    const { EventSource, answers, aWindow, clock } = aHub();
    const one = aWindow();
    one.want(['a', 'b']);
    clock.pass(100);
    answers.push(answer);
    EventSource.last.giveUp();
    await settle();
    assert.deepEqual(one.missing(), ['a', 'b']);
    clock.pass(10_000);
    assert.equal(EventSource.made.length, 1);
  });
}

test('a server that carries fewer operations is asked for half as many', async () => {
  const { EventSource, answers, aWindow, clock, asked } = aHub();
  aWindow().want(Array.from({ length: 40 }, (_, i) => `op-${i}`));
  clock.pass(100);
  for (const left of [20, 10]) {
    answers.push(new Problem('invalid', 'too many', { status: 422 }));
    EventSource.last.giveUp();
    await settle();
    clock.pass(2_000);
    assert.equal(asked().length, left);
  }
  assert.equal(asked()[0], 'op-0', 'the most important are first');
});

test('the address stays short enough for proxies, and each window has its share', () => {
  const { EventSource, aWindow, clock, asked } = aHub();
  for (const name of ['x', 'y']) aWindow().want(Array.from({ length: 100 }, (_, i) => `${name}-${i}`.padEnd(128, '_')));
  clock.pass(100);
  assert.ok(EventSource.last.url.href.length < 7_000);
  const of = (name) => asked().filter((id) => id.startsWith(name)).length;
  assert.ok(Math.abs(of('x') - of('y')) <= 1);
});

test('windows that are gone, out of sight or silent hold nothing open', () => {
  for (const leave of [
    ({ one }) => one.leave(),
    ({ one }) => one.want([]),
    ({ clock }) => clock.pass(36_000), // it crashed: nobody hears from it
  ]) {
    const { clock, EventSource, aWindow, open } = aHub();
    const one = aWindow();
    one.want(['a']);
    open();
    leave({ one, clock });
    clock.pass(2_000);
    assert.equal(EventSource.open.length, 0);
  }
});

test('from one window to another the stream stays', () => {
  const { clock, EventSource, aWindow, open } = aHub();
  const [one, two] = [aWindow(), aWindow()];
  one.want(['a']);
  open();
  one.leave();
  clock.pass(500);
  two.want(['a'], { back: 'visible' });
  clock.pass(5_000);
  assert.equal(EventSource.made.length, 1);
});

test('a newer connection of the same identifier is left its place, until somebody comes back', () => {
  const { clock, EventSource, aWindow, open } = aHub();
  const one = aWindow();
  one.want(['a']);
  open();
  EventSource.last.send('replaced', {}, 'replaced');
  assert.deepEqual([one.connection().state, one.connection().code], ['rejected', 'replaced']);
  one.want(['a', 'b']);
  clock.pass(60_000);
  assert.equal(EventSource.open.length, 0);
  one.want(['a', 'b'], { back: 'visible' });
  assert.equal(EventSource.open.length, 1);
});

test('who signs in as somebody else gets a stream of their own, and other windows have to ask who it is', () => {
  const { clock, EventSource, aWindow, open, asked, query, send } = aHub();
  const [one, two] = [aWindow(), aWindow()];
  one.want(['of-ann'], { principal: 'ann', at: 1 });
  two.want(['of-ann'], { principal: 'ann', at: 2 });
  open();
  send('of-ann', 'snapshot', 3, operation({ id: 'of-ann' }));
  [one, two].forEach((each) => each.clear());
  two.want(['of-bob'], { principal: 'bob', at: 9 });
  assert.equal(EventSource.open.length, 0);
  assert.deepEqual(one.messages.filter(({ recheck }) => recheck).length, 1);
  open();
  assert.deepEqual([asked(), query().last_event_id], [['of-bob'], undefined]);
  one.want(['of-ann'], { principal: 'ann', at: 3 }); // it was told so before that
  assert.equal(one.messages.at(-1).recheck, true);
  clock.pass(5_000);
  assert.deepEqual(asked(), ['of-bob']);
  one.want(['of-bob'], { principal: 'bob', at: 10 });
  assert.equal(one.connection().state, 'live');
  assert.equal(EventSource.open.length, 1);
});
