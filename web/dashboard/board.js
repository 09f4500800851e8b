/** All the operations the page knows, and which of them are shown. */

/** @import {Operation} from '../client/types.js' */

import { byAge, Entry } from './entry.js';
import { titleOf } from './format.js';

/** Rows kept; past that the oldest finished ones go. */
const MOST_ENTRIES = 200;

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
    for (const { id } of complete ? [...this.entries.values()] : []) if (!this.#listed.has(id)) this.#forget(id);
    for (const { id } of ended) if (this.entries.size > MOST_ENTRIES) this.#forget(id);
  }

  /** Whether the last list had it. @param {string} id */
  isListed(id) {
    return this.#listed.has(id);
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

  /** @param {string} id */
  #forget(id) {
    if (id === this.selectedId) return;
    this.entries.get(id)?.watch?.close();
    this.entries.delete(id);
  }
}

/** @param {Operation} operation @param {'all'|'running'|'finished'} filter */
function passes(operation, filter) {
  return filter === 'all' || operation.done === (filter === 'finished');
}
