/** Which operations have a stream of their own: a browser opens six connections to a host, over all its tabs. */

/** @import {Operations} from '../client/operations.js' */
/** @import {Entry} from './entry.js' */

import { Watch } from '../client/watch.js';
import { byAge } from './entry.js';

export const MOST_STREAMS = 4;

/**
 * The selected one first, then the newest that are at work.
 * @param {Iterable<Entry>} entries @param {string|null} selectedId @returns {Entry[]}
 */
export function choose(entries, selectedId) {
  const open = [...entries].filter(({ watch }) => !['ended', 'refused'].includes(watch?.connection.state ?? ''));
  const selected = open.filter(({ id }) => id === selectedId);
  const atWork = open.filter(({ id, operation }) => id !== selectedId && !operation.done && operation.status !== 'pending');
  return [...selected, ...atWork.sort(byAge)].slice(0, MOST_STREAMS);
}

/**
 * Close the streams that are no longer wanted, then open those that are.
 * @param {Iterable<Entry>} entries @param {string|null} selectedId
 * @param {Operations} operations @param {() => void} changed
 */
export function steer(entries, selectedId, operations, changed) {
  const all = [...entries];
  const needsLog = all.find(({ id, watch }) => id === selectedId && watch && !watch.fromStart);
  if (needsLog) {
    needsLog.see(needsLog.operation, Date.now()); // what the stream told is not forgotten with it
    needsLog.watch?.close();
    needsLog.watch = null;
  }
  const chosen = new Set(choose(all, selectedId));
  for (const entry of all) if (!chosen.has(entry)) entry.watch?.close();
  for (const entry of chosen) {
    entry.watch ??= new Watch(entry.id, {
      known: entry.operation,
      fromStart: entry.id === selectedId,
      intervalMs: 250,
      children: true,
      pauseWhenHidden: true,
      onChange: changed,
      operations,
    });
    entry.watch.open();
  }
}
