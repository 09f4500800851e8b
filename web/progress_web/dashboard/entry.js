/** What the page knows about one operation, from the list, from single calls and from the stream. */

/** @import {Event, Operation} from '../client/types.js' */
/** @import {Operations, Problem} from '../client/operations.js' */

import { begin, fold } from '../client/fold.js';
import { LogTail } from '../client/log-tail.js';
import { briefly } from './children.js';
import { ignoresCancel, newsText } from './worker.js';

export class Entry {
  state = begin();
  /** Its log, while the operation is selected. @type {LogTail|null} */ tail = null;
  /** A new object whenever the log starts again from empty. */ logId = {};
  /** @type {{code: string, detail: string}|null} */ problem = null;
  asking = false;
  #reportedStatus;

  /** @param {Operation} operation @param {number} now milliseconds since 1970 */
  constructor(operation, now) {
    this.id = operation.id;
    this.seenAt = now;
    this.#reportedStatus = String(operation.status);
    this.see(operation, now);
  }

  /** @returns {Operation} */
  get operation() {
    return /** @type {Operation} */ (this.state.operation);
  }

  /**
   * Apply the response of a call. The stream may be ahead of it, but does not include children.
   * @param {Operation} operation @param {number} now milliseconds since 1970
   */
  see(operation, now) {
    this.seenAt = now;
    const known = this.state.operation;
    if (known && operation.created_at < known.created_at) return; // it was deleted and created again
    const { id, position, events: n, children } = operation;
    const seen = { position, operation: id, time: Date.parse(operation.updated_at), reset: null };
    this.#take({ ...seen, type: 'snapshot', n, data: operation });
    if (!children && !this.operation.children) return;
    const operations = children?.operations?.map(briefly) ?? this.state.children;
    this.#take({ ...seen, type: 'children', n: 0, data: { total: 0, ...children, operations } });
  }

  /** Apply an event of the stream. @param {Event} event */
  hear(event) {
    if (event.type === 'log') return this.tail?.hear(event);
    if (event.reset) this.#forgetLog();
    this.#take(event);
    if (event.reset) this.tail?.beginAnew(event.data);
    else if (event.type === 'snapshot') this.tail?.catchUp(event.data);
  }

  /** @param {Event} event */
  #take(event) {
    const before = this.state.operation;
    this.state = fold(this.state, event);
    if (!before || before.created_at === this.operation.created_at) return;
    this.#forgetLog(); // a new operation has its id now
    this.tail?.beginAnew(this.operation);
  }

  /** Follow its log. @param {Operations} operations @param {() => void} changed */
  openLog(operations, changed) {
    this.#forgetLog();
    this.tail = new LogTail(this.id, {
      operations,
      onEvents: (events) => {
        this.state = events.reduce(fold, this.state);
        changed();
      },
    });
    this.tail.catchUp(this.operation);
  }

  closeLog() {
    this.tail?.close();
    this.tail = null;
    this.#forgetLog();
  }

  #forgetLog() {
    this.state = { ...this.state, log: [], logged: 0, logN: 0 };
    this.logId = {};
  }

  /** Whether it can be cancelled: it has not ended, and no cancel was requested. */
  get cancellable() {
    const { done, cancel_requested: requested, status } = this.operation;
    return !(done || requested || status === 'cancelling' || this.asking);
  }

  /** The announcement for screen readers, if something new happened. @param {number} now milliseconds since 1970 */
  news(now) {
    const { operation } = this;
    const before = this.#reportedStatus;
    this.#reportedStatus = ignoresCancel(operation, now) ? 'ignored' : operation.status;
    return newsText(before, this.#reportedStatus);
  }

  /**
   * Ask the worker to stop. An error is kept as `problem`.
   * @param {Operations} operations @param {() => void} changed @param {() => number} [now]
   */
  async cancel(operations, changed, now = Date.now) {
    if (this.cancellable) await this.#ask(operations.cancel(this.id, 'cancelled on the dashboard'), changed, now);
  }

  /**
   * End the operation, even if its worker does not stop. An error is kept as `problem`.
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
      this.problem = /** @type {Problem} */ (problem);
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
