import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Problem } from '../progress_web/client/operations.js';
import { Entry } from '../progress_web/dashboard/entry.js';
import { event, FakeClock, operation, settle } from './fakes.mjs';

const PAGE = 3;
const line = (n) => event('log', n, { message: `line ${n}` });

/** An entry whose log is followed, and a server that keeps lines; `hold` has its answers wait. */
function following(n = 5) {
  const [clock, kept, asked, held] = [new FakeClock(), Array.from({ length: n }, (_, i) => i + 1), [], []];
  const server = { kept, asked, clock, failures: [], hold: false, reset: null, release: () => held.splice(0).forEach((go) => go()) };
  const operations = {
    async history(id, { after, types }) {
      asked.push(after);
      assert.deepEqual([id, types], ['import-42', ['log']]);
      const failure = server.failures.shift();
      if (failure) throw failure;
      const from = Number(after?.split('-')[0] ?? 0);
      const [reset, news] = [after && server.reset, kept.filter((at) => at > from).slice(0, PAGE)];
      if (server.hold) await new Promise((go) => held.push(go));
      if (reset) {
        server.reset = null;
        return { operation: id, events: [], position: '4-0', done: false, reset, snapshot: operation({ events: kept.at(-1) }) };
      }
      const position = news.length > 0 ? `${news.at(-1)}-0` : after;
      return { operation: id, events: news.map(line), position, done: false, reset: null, snapshot: null };
    },
  };
  const entry = new Entry(operation({ events: n }), 0);
  entry.openLog(operations, () => {});
  const lines = () => entry.state.log.map(({ n: at, level, message }) => (level === 'gap' ? message : at));
  const write = (at, { heard = true } = {}) => {
    kept.push(at);
    if (heard) entry.hear(line(at));
  };
  const snapshot = (at, more = {}) => entry.hear(event('snapshot', at, operation({ events: at }), more));
  return { entry, server, lines, write, snapshot };
}

test('what is kept is read page by page, and what comes then is heard', async () => {
  const { server, lines, write } = following();
  await settle();
  assert.deepEqual(lines(), [1, 2, 3, 4, 5]);
  assert.deepEqual(server.asked, [null, '3-0', '5-0']);
  write(6);
  assert.deepEqual(lines(), [1, 2, 3, 4, 5, 6]);
  assert.equal(server.asked.length, 3);
});

test('lines that come while older ones are read are put behind them, once', async () => {
  const { server, lines, write } = following();
  server.hold = true;
  await settle();
  write(6);
  write(7);
  assert.deepEqual(lines(), [1, 2, 3]);
  server.hold = false;
  server.release();
  await settle();
  assert.deepEqual(lines(), [1, 2, 3, 4, 5, 6, 7]);
});

test('what was missed between two streams is read', async () => {
  const { server, lines, write, snapshot } = following();
  await settle();
  write(6);
  snapshot(6); // nothing was
  assert.equal(server.asked.length, 3);
  write(7, { heard: false });
  write(8, { heard: false });
  snapshot(8);
  write(9);
  await settle();
  assert.deepEqual(lines(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test('after a failure it is read again, and nothing is left out', async () => {
  const { entry, server, lines, write } = following();
  server.failures.push(new Problem('unreachable', 'away'));
  await settle();
  assert.deepEqual(lines(), [1, 2, 3]); // the first page was asked for before
  assert.equal(entry.tail.problem.code, 'unreachable');
  write(6);
  assert.deepEqual(lines(), [1, 2, 3]);
  server.hold = true;
  entry.tail.catchUp(operation({ events: 5 }));
  write(7);
  server.failures.push(new Problem('unreachable', 'away'));
  server.hold = false;
  server.release();
  await settle();
  entry.tail.catchUp(operation({ events: 5 }));
  await settle();
  assert.deepEqual(lines(), [1, 2, 3, 4, 5, 6, 7]);
  assert.equal(entry.tail.problem, null);
});

test('a gap is told: by the stream, then all that is kept is read again; by the history, then it goes on', async () => {
  const { server, lines, write, snapshot } = following();
  await settle();
  server.kept.splice(0, 3);
  snapshot(5, { reset: 'trimmed' });
  await settle();
  assert.deepEqual(lines(), ['trimmed', 4, 5]);
  server.reset = 'lost';
  write(6, { heard: false });
  snapshot(6);
  await settle();
  assert.deepEqual(lines(), ['trimmed', 4, 5, 'lost', 5, 6]);
});

test('closed, it tells nothing more', async () => {
  const { entry, server, lines } = following();
  server.hold = true;
  await settle();
  assert.deepEqual(lines(), [1, 2, 3]);
  entry.closeLog();
  server.hold = false;
  server.release();
  await settle();
  assert.deepEqual(lines(), []);
});

test('another operation that has the id now has a log of its own', async () => {
  const { entry, server, lines } = following();
  await settle();
  server.kept.splice(0, 5, 1, 2);
  entry.see(operation({ events: 2, created_at: '2026-11-22T00:00:00.000Z' }), 1);
  await settle();
  assert.deepEqual(lines(), [1, 2]);
});
