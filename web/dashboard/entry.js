/** What the page knows of one operation, from the list and from its stream. */

/** @import {Operation} from '../client/types.js' */
/** @import {Watch} from '../client/watch.js' */
/** @import {Operations} from '../client/operations.js' */

import { newer } from '../client/fold.js';

export class Entry {
  /** @type {Watch|null} */ watch = null;
  /** @type {{code: string, detail: string}|null} */ problem = null;
  asking = false;
  #listed;

  /** @param {Operation} operation @param {number} now milliseconds since 1970 */
  constructor(operation, now) {
    this.id = operation.id;
    this.#listed = operation;
    this.seenAt = now;
    this.wasDone = operation.done;
  }

  /** The newest there is: a stream that replays is behind the list for a moment. @returns {Operation} */
  get operation() {
    return newer(this.#listed, this.watch?.state.operation) ?? this.#listed;
  }

  /** @param {Operation} operation @param {number} now milliseconds since 1970 */
  see(operation, now) {
    this.#listed = newer(operation, this.#listed);
    this.seenAt = now;
  }

  /** Whether asking to cancel makes sense. */
  get cancellable() {
    const { done, cancel_requested: requested, status } = this.operation;
    return !(done || requested || status === 'cancelling' || this.asking);
  }

  /**
   * Ask the worker to stop; a refusal is kept as `problem`.
   * @param {Operations} operations @param {() => void} changed @param {() => number} [now]
   */
  async cancel(operations, changed, now = Date.now) {
    if (!this.cancellable) return;
    this.asking = true;
    this.problem = null;
    changed();
    try {
      this.see(await operations.cancel(this.id, 'asked for on the dashboard'), now());
    } catch (problem) {
      this.problem = /** @type {import('../client/operations.js').Problem} */ (problem);
    }
    this.asking = false;
    changed();
  }
}

/** Newest first, and the same order every time. @param {Entry} a @param {Entry} b */
export function byAge(a, b) {
  const [x, y] = [a.operation, b.operation];
  if (x.created_at !== y.created_at) return x.created_at < y.created_at ? 1 : -1;
  return x.id < y.id ? -1 : 1;
}
