/** All the operations the page knows, and which of them are shown. */

/** @import {Operation} from '../client/types.js' */

import { byAge, Entry } from './entry.js';
import { titleOf } from './format.js';

/** Rows kept; past that the oldest finished ones go. */
const MOST_ENTRIES = 200;
/** How old may be what is shown of an operation at work that neither the list nor the stream tells of. */
const STALE_MS = 8_000;

export class Board {
  /** @type {Map<string, Entry>} */ entries = new Map();
  /** @type {'all'|'running'|'finished'} */ filter = 'all';
  /** @type {string|null} */ selectedId = null;
  /** @type {Set<string>} */ #listed = new Set();

  get selected() {
    return this.selectedId === null ? undefined : this.entries.get(this.selectedId);
  }

  /** @param {Operation} operation @param {number} now milliseconds since 1970 */
  see(operation, now) {
    const entry = this.entries.get(operation.id);
    if (entry) entry.see(operation, now);
    else this.entries.set(operation.id, new Entry(operation, now));
  }

  /**
   * Take over a list. What a complete one lacks is gone from the server; the selected one stays to be read.
   * @param {Operation[]} operations @param {boolean} complete @param {number} now milliseconds since 1970
   */
  list(operations, complete, now) {
    for (const operation of operations) this.see(operation, now);
    this.#listed = new Set(operations.map(({ id }) => id));
    const ended = [...this.entries.values()].filter(({ operation }) => operation.done).sort(byAge).reverse();
    for (const { id } of complete ? [...this.entries.values()] : []) if (!this.#listed.has(id)) this.#leave(id);
    for (const { id } of ended) if (this.entries.size > MOST_ENTRIES) this.#leave(id);
  }

  /** Whether the last list had it. @param {string} id */
  isListed(id) {
    return this.#listed.has(id);
  }

  /** The operations that the stream should tell of: the selected one, then the newest. @returns {string[]} */
  wanted() {
    const open = [...this.entries.values()].filter(({ operation }) => !operation.done).sort(byAge).map(({ id }) => id);
    const selected = open.filter((id) => id === this.selectedId);
    return [...selected, ...open.filter((id) => id !== this.selectedId)];
  }

  /**
   * The operations that have to be read one by one, as the list lacks them.
   * @param {number} now @param {number} since what was seen before this moment may no longer be so
   * @param {(id: string) => boolean} isLive whether the stream tells of it
   */
  unsure(now, since, isLive) {
    const left = [...this.entries.values()].filter(({ id }) => !this.#listed.has(id));
    const unsure = left.filter(({ id, operation, seenAt }) => seenAt < since || (!operation.done && !isLive(id) && now - seenAt > STALE_MS));
    return unsure.sort((a, b) => Number(a.operation.done) - Number(b.operation.done)).map(({ id }) => id);
  }

  /** The entries that pass the filter, newest first. */
  shown() {
    const entries = [...this.entries.values()].filter(({ operation }) => passes(operation, this.filter));
    return entries.sort(byAge);
  }

  /** @param {'all'|'running'|'finished'} filter */
  count(filter) {
    return [...this.entries.values()].filter(({ operation }) => passes(operation, filter)).length;
  }

  /** What should be said aloud since this was last asked. @param {number} now milliseconds since 1970 */
  news(now) {
    return [...this.entries.values()].flatMap((entry) => {
      const text = entry.news(now);
      return text ? [`${titleOf(entry.operation)}: ${text}`] : [];
    });
  }

  /** Forget an operation that is no more. @param {string} id */
  forget(id) {
    this.entries.get(id)?.closeLog();
    this.entries.delete(id);
  }

  /** @param {string} id */
  #leave(id) {
    if (id !== this.selectedId) this.forget(id);
  }
}

/** @param {Operation} operation @param {'all'|'running'|'finished'} filter */
function passes(operation, filter) {
  return filter === 'all' || operation.done === (filter === 'finished');
}
