/** All operations that the page knows, and which of them are shown. */

/** @import {Operation} from '../client/types.js' */

import { byAge, Entry } from './entry.js';
import { titleOf } from './format.js';

/** Maximum rows. Beyond it, the oldest finished operations are removed. */
const MOST_ENTRIES = 200;
/** A running operation that is neither in the list nor in the stream is read again after this time. */
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
   * Apply a list. If it is complete, operations that are not in it were deleted. The selected one stays visible.
   * @param {Operation[]} operations @param {boolean} complete @param {number} now milliseconds since 1970
   */
  list(operations, complete, now) {
    for (const operation of operations) this.see(operation, now);
    this.#listed = new Set(operations.map(({ id }) => id));
    const ended = [...this.entries.values()].filter(({ operation }) => operation.done).sort(byAge).reverse();
    for (const { id } of complete ? [...this.entries.values()] : []) if (!this.#listed.has(id)) this.#leave(id);
    for (const { id } of ended) if (this.entries.size > MOST_ENTRIES) this.#leave(id);
  }

  /** Whether the last list contained it. @param {string} id */
  isListed(id) {
    return this.#listed.has(id);
  }

  /** The operations that the stream should follow: the selected one, then the newest. @returns {string[]} */
  wanted() {
    const open = [...this.entries.values()].filter(({ operation }) => !operation.done).sort(byAge).map(({ id }) => id);
    const selected = open.filter((id) => id === this.selectedId);
    return [...selected, ...open.filter((id) => id !== this.selectedId)];
  }

  /**
   * The operations that have to be read one by one, because the list does not contain them.
   * @param {number} now @param {number} since data from before this time may be out of date
   * @param {(id: string) => boolean} isLive whether the stream follows it
   */
  unsure(now, since, isLive) {
    const unlisted = [...this.entries.values()].filter(({ id }) => !this.#listed.has(id));
    const unsure = unlisted.filter(({ id, operation, seenAt }) => seenAt < since || (!operation.done && !isLive(id) && now - seenAt > STALE_MS));
    return unsure.sort((a, b) => Number(a.operation.done) - Number(b.operation.done)).map(({ id }) => id);
  }

  /** The entries that match the filter, newest first. */
  shown() {
    const entries = [...this.entries.values()].filter(({ operation }) => passes(operation, this.filter));
    return entries.sort(byAge);
  }

  /** @param {'all'|'running'|'finished'} filter */
  count(filter) {
    return [...this.entries.values()].filter(({ operation }) => passes(operation, filter)).length;
  }

  /** The announcements for screen readers since the last call. @param {number} now milliseconds since 1970 */
  news(now) {
    return [...this.entries.values()].flatMap((entry) => {
      const text = entry.news(now);
      return text ? [`${titleOf(entry.operation)}: ${text}`] : [];
    });
  }

  /** Remove an operation that no longer exists. @param {string} id */
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
