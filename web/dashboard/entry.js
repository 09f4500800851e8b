/** What the page knows of one operation, from the list and from its stream. */

/** @import {Operation} from '../client/types.js' */
/** @import {Watch} from '../client/watch.js' */
/** @import {Operations} from '../client/operations.js' */

import { newer } from '../client/fold.js';
import { ignoresCancel, newsText } from './worker.js';

export class Entry {
  /** @type {Watch|null} */ watch = null;
  /** @type {{code: string, detail: string}|null} */ problem = null;
  asking = false;
  #listed;
  #told;

  /** @param {Operation} operation @param {number} now milliseconds since 1970 */
  constructor(operation, now) {
    this.id = operation.id;
    this.#listed = operation;
    this.seenAt = now;
    this.#told = String(operation.status);
  }

  /** The newest there is: a stream that replays is behind the list for a moment. @returns {Operation} */
  get operation() {
    const told = this.watch?.state.operation;
    const live = told?.children && this.watch?.connection.state === 'live'; // they go on without an event of its own
    return (live ? newer(told, this.#listed) : newer(this.#listed, told)) ?? this.#listed;
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

  /** What should be said aloud of it that was not said before. @param {number} now milliseconds since 1970 */
  news(now) {
    const { operation } = this;
    const before = this.#told;
    this.#told = ignoresCancel(operation, now) ? 'ignored' : operation.status;
    return newsText(before, this.#told);
  }

  /**
   * Ask the worker to stop; a refusal is kept as `problem`.
   * @param {Operations} operations @param {() => void} changed @param {() => number} [now]
   */
  async cancel(operations, changed, now = Date.now) {
    if (this.cancellable) await this.#ask(operations.cancel(this.id, 'asked for on the dashboard'), changed, now);
  }

  /**
   * End it whatever its worker does; a refusal is kept as `problem`.
   * @param {Operations} operations @param {() => void} changed @param {() => number} [now]
   */
  async endByForce(operations, changed, now = Date.now) {
    const { done } = this.operation;
    if (!done && !this.asking) await this.#ask(operations.cancel(this.id, 'ended by force on the dashboard', true), changed, now);
  }

  /** @param {Promise<Operation>} question @param {() => void} changed @param {() => number} now */
  async #ask(question, changed, now) {
    this.asking = true;
    this.problem = null;
    changed();
    try {
      this.see(await question, now());
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
