import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Operations, Problem } from '../progress_web/client/operations.js';
import { Board } from '../progress_web/dashboard/board.js';
import { entryConnection, healthText } from '../progress_web/dashboard/connection.js';
import { Entry } from '../progress_web/dashboard/entry.js';
import { readingOf } from '../progress_web/dashboard/bar.js';
import { cancelQuestion } from '../progress_web/dashboard/cancel.js';
import { durationText, etaText, paceTexts, percentOf, rateText, statusPercentText, titleOf } from '../progress_web/dashboard/format.js';
import { Listing, REFRESH_MS } from '../progress_web/dashboard/listing.js';
import { plain } from '../progress_web/dashboard/plain.js';
import { ignoresCancel, timeToStop, workerText } from '../progress_web/dashboard/worker.js';
import { FakeClock, fakePage, operation, settle } from './fakes.mjs';

const created = (i) => new Date(1_763_690_400_000 + i).toISOString();
const entry = (i, changes = {}) => new Entry(operation({ id: `op-${i}`, created_at: created(i), ...changes }), 0);

function listening(answer) {
  const [clock, page, lists, healths] = [new FakeClock(), fakePage(), [], []];
  let calls = 0;
  const operations = { list: async () => {
    calls++;
    const next = answer();
    if (next instanceof Error) throw next;
    return { operations: next, next_cursor: null };
  } };
  const listing = new Listing({
    operations, clock, page, random: () => 0,
    onList: (list) => lists.push(list),
    onHealth: ({ state }) => healths.push(state),
  });
  listing.start();
  return { clock, page, lists, healths, listing, calls: () => calls };
}

test('the list is asked for again and again, but not while nobody looks', async () => {
  const { clock, page, healths, calls } = listening(() => []);
  await settle();
  clock.pass(REFRESH_MS);
  await settle();
  assert.equal(calls(), 2);
  page.see('hidden');
  clock.pass(60_000);
  assert.equal(calls(), 2);
  page.see('visible');
  await settle();
  assert.equal(calls(), 3);
  assert.deepEqual(healths, ['live', 'paused', 'live']);
});

test('a server that is away is asked less and less, and since when is told', async () => {
  let away = true;
  const { clock, listing, healths, calls } = listening(() => (away ? new Problem('unreachable', 'away') : []));
  const failedAt = clock.now();
  for (const ms of [500, 1_000, 2_000]) {
    await settle();
    clock.pass(ms);
  }
  await settle();
  assert.equal(calls(), 4);
  assert.deepEqual(listing.health, { state: 'unreachable', since: failedAt, detail: '', code: 'unreachable' });
  assert.match(healthText(listing.health), /^the server has been unreachable since \d\d/);
  away = false;
  clock.pass(4_000);
  await settle();
  assert.deepEqual(healths, ['reconnecting', 'unreachable', 'live']);
});

test('the stream is to tell of all that has not ended, of the selected one first, then of the newest', () => {
  const board = new Board();
  const operations = Array.from({ length: 60 }, (_, i) => operation({ id: `op-${i}`, created_at: created(i) }));
  const ended = operation({ id: 'ended', created_at: created(99), done: true, status: 'failed' });
  board.list([...operations, ended], true, 0);
  const newestFirst = operations.map(({ id }) => id).reverse();
  assert.deepEqual(board.wanted(), newestFirst);
  board.selectedId = 'op-1';
  assert.deepEqual(board.wanted(), ['op-1', ...newestFirst.filter((id) => id !== 'op-1')]);
  board.selectedId = 'ended';
  assert.deepEqual(board.wanted(), newestFirst);
});

test('what the list lacks is read by itself: all of it after a while unseen, else what nothing tells of', () => {
  const board = new Board();
  const [running, done, followed] = ['running', 'done', 'followed'].map((id) => operation({ id, created_at: created(1) }));
  board.list([running, { ...done, done: true, status: 'succeeded' }, followed], true, 1_000);
  board.list([operation({ id: 'new', created_at: created(2) })], false, 2_000);
  const unsure = (now, since) => board.unsure(now, since, (id) => id === 'followed');
  assert.deepEqual(unsure(2_000, 0), []);
  assert.deepEqual(unsure(9_500, 0), ['running']);
  assert.deepEqual(unsure(9_500, 9_000), ['running', 'followed', 'done']);
});

test('the board orders by age, filters, tells news once, and forgets what the server forgot', () => {
  const board = new Board();
  board.list([operation({ id: 'a', created_at: created(1) }), operation({ id: 'b', created_at: created(2) })], true, 0);
  assert.deepEqual(board.shown().map(({ id }) => id), ['b', 'a']);
  board.list([operation({ id: 'a', created_at: created(1), done: true, status: 'failed', events: 4 })], false, 0);
  assert.deepEqual(board.news(0), ['Import: failed']);
  assert.deepEqual(board.news(0), []);
  board.filter = 'finished';
  assert.deepEqual(board.shown().map(({ id }) => id), ['a']);
  board.selectedId = 'a';
  board.list([], true, 0);
  assert.deepEqual([...board.entries.keys()], ['a']);
});

test('a row says how fresh it is', () => {
  const live = { state: 'live', since: 0, detail: '', code: null };
  const stream = (state, ...followed) => ({ connection: { state, code: 'draining', detail: null, since: 0 }, followed: new Set(followed) });
  const none = stream('closed');
  assert.equal(entryConnection(entry(1), live, true, none).state, 'listed');
  assert.equal(entryConnection(entry(1), live, false, none).state, 'stale');
  assert.equal(entryConnection(entry(1), { ...live, state: 'unreachable' }, true, none).state, 'stale');
  assert.equal(entryConnection(entry(1), live, true, stream('live', 'op-1')).state, 'live');
  assert.equal(entryConnection(entry(1), live, true, stream('live', 'op-2')).state, 'listed');
  assert.match(entryConnection(entry(1), live, true, stream('reconnecting', 'op-1')).text, /the server is restarting/);
  assert.equal(entryConnection(entry(1, { done: true }), live, true, stream('live', 'op-1')).state, 'ended');
});

test('cancelling is asked once, and a rejection is kept', async () => {
  const rejected = entry(1);
  await rejected.cancel({ cancel: async () => { throw new Problem('forbidden', 'no', { status: 403 }); } }, () => {});
  assert.equal(rejected.problem.detail, 'no');
  assert.equal(rejected.cancellable, true);
  const taken = entry(2);
  await taken.cancel({ cancel: async () => operation({ id: 'op-2', created_at: created(2), status: 'cancelling', events: 4 }) }, () => {});
  assert.equal(taken.cancellable, false);
});

test('what becomes of a worker is said aloud, once', () => {
  const cancel = { reason: null, by: null, requested_at: created(0), overdue_at: created(30_000) };
  const [before, overdue] = [Date.parse(created(29_999)), Date.parse(created(30_000))];
  const mine = entry(1);
  let events = 3;
  const news = (changes, now = before) => {
    mine.see(operation({ id: mine.id, created_at: created(1), events: ++events, ...changes }), 0);
    return [mine.news(now), mine.news(now)];
  };
  assert.deepEqual(news({ status: 'running' }), ['', '']);
  assert.deepEqual(news({ status: 'stalled' }), ['stalled, no heartbeat from its worker', '']);
  assert.deepEqual(news({ status: 'running' }), ['running again', '']);
  assert.deepEqual(news({ status: 'cancelling', cancel }), ['', '']);
  assert.deepEqual(news({ status: 'cancelling', cancel }, overdue), ['its worker ignores the request to stop', '']);
  assert.deepEqual(news({ status: 'cancelled', done: true, cancel }, overdue), ['cancelled', '']);
});

test('a worker that was asked to stop ignores it when its time is over, and not before', () => {
  const cancel = { reason: 'too slow', by: 'ann@desk-3', requested_at: created(0), overdue_at: created(30_000) };
  const asked = operation({ status: 'cancelling', cancel });
  const [before, overdue] = [Date.parse(created(29_999)), Date.parse(created(30_000))];
  assert.equal(timeToStop(asked, before), 1);
  assert.match(workerText(asked, before), /^Asked to stop at .*\d\d:\d\d:\d\d by ann@desk-3: too slow$/);
  assert.match(workerText(asked, overdue), /: too slow\. Ignored by its worker since .*\d\.$/);
  assert.deepEqual([ignoresCancel(asked, before), ignoresCancel(asked, overdue)], [false, true]);
  assert.equal(ignoresCancel({ ...asked, status: 'cancelled', done: true }, overdue), false);
  assert.equal(timeToStop(operation(), overdue), null);
  assert.equal(workerText(operation(), overdue), '');
  const unsaid = { ...asked, cancel: { ...cancel, reason: null, by: null } };
  assert.match(workerText(unsaid, before), /^Asked to stop at [-\d: ]+$/);
});

test('force is said to the server, and not twice at once', async () => {
  const calls = [];
  let answer;
  const operations = { cancel: (...call) => (calls.push(call), new Promise((done) => { answer = done; })) };
  const mine = entry(1, { status: 'cancelling' });
  const first = mine.endByForce(operations, () => {});
  await mine.endByForce(operations, () => {});
  answer(operation({ id: 'op-1', created_at: created(1), status: 'cancelled', done: true, events: 4 }));
  await first;
  await mine.endByForce(operations, () => {});
  assert.deepEqual(calls, [['op-1', 'ended by force on the dashboard', true]]);
});

test('the time is the server\'s where the page\'s clock is wrong', async () => {
  const clock = new FakeClock();
  let date = null;
  const fetch = async () => new Response('{}', { headers: date === null ? {} : { Date: new Date(date).toUTCString() } });
  const operations = new Operations({ base: 'http://broker.test/', fetch, clock });
  const after = async (sent) => {
    date = sent;
    await operations.get('a');
    return operations.now() - clock.now();
  };
  assert.equal(await after(null), 0);
  assert.equal(await after(clock.now() - 3_000), 0); // a header is never exact
  assert.equal(await after(clock.now() + 600_000), 600_000);
  clock.pass(60_000);
  assert.equal(await after(null), 600_000);
  assert.equal(await after(clock.now()), 0); // the clock was set
});

test('problems come with code and detail, also from what is no problem document', async () => {
  const answer = (body, init) => new Operations({ base: 'http://broker.test/', fetch: async () => new Response(body, init) });
  const problem = JSON.stringify({ type: 'gone', title: 'Gone', status: 410, detail: 'it was deleted' });
  await assert.rejects(answer(problem, { status: 410 }).get('a'), { code: 'gone', detail: 'it was deleted', lasting: true });
  const busy = answer('<html>', { status: 503, headers: { 'Retry-After': '7' } });
  await assert.rejects(busy.get('a'), { code: 'http-503', status: 503, retryAfterMs: 7_000, lasting: false });
  const away = new Operations({ base: 'http://broker.test/', fetch: async () => { throw new TypeError('fetch failed'); } });
  await assert.rejects(away.list(), { code: 'unreachable', status: 0 });
});

test('numbers are told as far as they are known', () => {
  assert.equal(percentOf({ current: 1, total: 4 }), 25);
  assert.equal(percentOf({ current: 1, total: null }), null);
  assert.equal(percentOf({ percent: 140 }), 100);
  assert.equal(rateText({ rate: 12.5, unit: 'rows' }), '12.5 rows/s');
  assert.equal(etaText({ eta_ms: null }), '');
  assert.deepEqual([4_640, 59_600, 200_000, 7_500_000, 180_000_000].map(durationText), ['4.6 s', '1 min 0 s', '3 min 20 s', '2 h 5 min', '2 d 2 h']);
});

test('an operation that has ended is not told to be on its way', () => {
  const progress = { current: 79, total: 100, rate: 3, eta_ms: 7_000 };
  const at = (status) => operation({ status, progress, done: status !== 'running' && status !== 'stalled' });
  assert.deepEqual(paceTexts(at('running')), ['3/s', '7 s left']);
  for (const status of ['stalled', 'cancelling', 'pending', 'succeeded', 'failed']) assert.deepEqual(paceTexts(at(status)), []);
  assert.deepEqual([readingOf(at('succeeded')).percent, readingOf(at('failed')).percent], [100, 79]);
  assert.deepEqual(['running', 'succeeded', 'failed', 'cancelled'].map((status) => statusPercentText(status, 79)), ['79 %', '100 %', '', '']);
});

test('text is shown without what steers terminals or turns the direction of what follows', () => {
  const shown = {
    '\u001b[1;31mred\u001b[0m': 'red',
    '\u001b[2K\u001b[1Gline': 'line',
    '\u009b31mred': 'red',
    '\u001b]0;title\u0007text': 'text',
    '\u001b]8;;http://a.test\u001b\\link\u001b]8;;\u001b\\': 'link',
    '\u001b(Btext\u001b7\u001b=': 'text',
    'cut \u001b[': 'cut ',
    'a\u0000b\bc': 'abc',
    'one\r\ntwo\rthree\tfour': 'one\ntwo\nthree\tfour',
    'evil\u202egpj.exe': 'evilgpj.exe',
    'שלום \u2067x\u2069 \u200ey': 'שלום \u2067x\u2069 \u200ey',
    '[31m 🚀 ñ': '[31m 🚀 ñ',
  };
  for (const [text, expected] of Object.entries(shown)) assert.equal(plain(text), expected);
  assert.equal(titleOf(operation({ id: 'a', title: '\u202e \u001b[0m' })), 'a');
});

test('a cancel is asked about, with the children that it reaches', () => {
  const words = (children) => cancelQuestion(entry(1, { children }));
  assert.deepEqual(words(null), { what: 'Import', text: 'This asks its worker to stop.' });
  const summary = { total: 13, done: 1, failed: 0, cancelled: 0, running: 12, percent: 5 };
  assert.match(words(summary).text, / and the workers of its 12 children to stop\.$/);
  assert.match(words({ ...summary, done: 12 }).text, / and the worker of its child to stop\.$/);
});
