/** Folds operations' events from each place one may begin at, and compares with what the server showed then. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { begin, fold } from '../../web/progress_web/client/fold.js';
import { decode } from '../../web/progress_web/client/frame.js';

const ONLY_SHOWN = { expires_at: null, elapsed_ms: null };
const ONLY_AT_CREATION = { kind: 'import', tags: ['eu'] };

const lives = JSON.parse(readFileSync(process.argv[2], 'utf8'));

for (const { events, shown } of lives) {
  const decoded = events.map(({ type, data, id }) => decode(type, data, id));
  const snapshots = shown.map(({ data, id }) => decode('snapshot', data, id));
  const last = snapshots.at(-1).data;
  const told = new Map(snapshots.map(({ data }) => [data.events, data]));

  let now = begin();
  for (const event of decoded) {
    now = fold(now, event);
    const then = told.get(event.n);
    if (then) same({ ...now.operation, ...ONLY_AT_CREATION }, then);
  }
  same({ ...now.operation, ...ONLY_AT_CREATION }, last);
  assert.equal(now.ended, last.done);
  if (last.done) assert.equal(now.operation.elapsed_ms, last.elapsed_ms);

  for (const snapshot of snapshots) {
    same(decoded.reduce(fold, fold(begin(), snapshot)).operation, last); // from a snapshot on
    same(decoded.reduce(fold, begin(snapshot.data)).operation, last); // from the start, though it is known from a list
  }
}
process.stdout.write(`${lives.length} lives\n`);

function same(folded, server) {
  assert.deepEqual({ ...folded, ...ONLY_SHOWN }, { ...server, ...ONLY_SHOWN });
}
