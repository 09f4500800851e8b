/** Follows one operation over an EventSource until the operation ends. */

/** @import {Connection, OperationState, WatchOptions} from './types.js' */
/** @import {Problem} from './operations.js' */

import { backoffMs, systemClock, Timers } from './clock.js';
import { begin, fold, newer } from './fold.js';
import { decode } from './frame.js';
import { Line } from './line.js';
import { Operations } from './operations.js';
import { followPage } from './page.js';

export class Watch {
  /** @type {OperationState} */ state;
  /** @type {Connection} */ connection;
  /** @type {Line|null} */ #line = null;
  /** @type {(() => void)|null} */ #unfollow = null;
  /** @type {object|null} */ #question = null;
  #attempt = 0;
  #options;
  #timers;

  /** @param {string} id @param {WatchOptions} [options] */
  constructor(id, {
    known = null, fromStart = false, intervalMs = 0, children = false, pauseWhenHidden = false, onChange = () => {},
    operations = new Operations(), EventSource = globalThis.EventSource,
    clock = systemClock, random = Math.random, page = globalThis,
  } = {}) {
    this.id = id;
    this.fromStart = fromStart;
    this.state = begin(known);
    this.connection = { state: 'closed', code: null, detail: null, since: clock.now() };
    this.#options = { intervalMs, children, pauseWhenHidden, onChange, operations, EventSource, clock, random, page };
    this.#timers = new Timers(clock);
  }

  /** Start, or continue after `close` from the last position. */
  open() {
    if (this.#unfollow || this.state.ended) return;
    this.#unfollow = followPage(this.#options.page, {
      away: () => {
        this.#drop();
        this.#become('closed', 'paused');
      },
      back: (why) => this.#back(why),
      hiddenIsAway: this.#options.pauseWhenHidden,
    });
    this.#attempt = 0;
    this.#connect();
  }

  /** Stop. The state stays; if the watch has already ended, so does its `connection`. */
  close() {
    if (this.#unfollow) this.#stop('closed');
  }

  #connect() {
    this.#drop();
    if (this.connection.state !== 'reconnecting') this.#become('connecting');
    if (this.#options.operations.needsTickets) this.#connectWithTicket();
    else this.#listen();
  }

  async #connectWithTicket() {
    const question = this.#question = {};
    const answer = await this.#options.operations.ticket(this.id).catch((/** @type {Problem} */ problem) => problem);
    if (question !== this.#question) return; // it was opened or closed in the meantime
    if (answer instanceof Error) this.#rejected(answer);
    else this.#listen(answer);
  }

  /** @param {string|null} [ticket] */
  #listen(ticket = null) {
    const { operations, intervalMs, children } = this.#options;
    const { position } = this.state;
    const url = operations.streamUrl(this.id, { position, fromStart: this.fromStart, intervalMs, children, ticket });
    this.#line = new Line(url, this.#options, {
      live: () => this.#live(),
      event: (name, message) => this.#heard(name, message),
      broken: () => this.#lost(),
      gaveUp: () => this.#ask(),
      silent: () => this.#retry(0, 'silent'),
    });
  }

  #live() {
    this.#attempt = 0;
    this.#become('live');
  }

  /** @param {string} name @param {MessageEvent} message */
  #heard(name, message) {
    if (name === 'replaced') return this.#stop('rejected', name, 'a newer connection of yours has replaced this one');
    const event = decode(name, message.data, message.lastEventId);
    if (name === 'reconnect') return this.#become('reconnecting', event?.data.reason ?? null);
    const state = event ? fold(this.state, event) : this.state;
    if (state === this.state) return;
    this.state = state;
    if (state.ended) this.#stop('ended');
    else this.#options.onChange(this);
  }

  #lost() {
    if (this.connection.state !== 'reconnecting') this.#become('reconnecting'); // otherwise the server has already sent the reason
    // By itself the browser would reconnect with a ticket that has expired.
    if (this.#options.operations.needsTickets) this.#retry(0, this.connection.code);
  }

  /** The browser gave up. It does not reveal the status, so ask whether the operation can still be followed. */
  async #ask() {
    this.#drop();
    if (this.connection.state !== 'reconnecting') this.#become('reconnecting');
    const question = this.#question = {};
    const answer = await this.#options.operations.get(this.id).catch((/** @type {Problem} */ problem) => problem);
    if (question !== this.#question) return; // it was opened or closed in the meantime
    if (answer instanceof Error) {
      this.#rejected(answer);
    } else if (answer.done && this.#attempt > 0) { // gave up again: the server has responded that nothing more will come
      this.state = { ...this.state, operation: newer(this.state.operation, answer), ended: true };
      this.#stop('ended');
    } else {
      this.#retry(); // even if it is done: the stream still has the last events
    }
  }

  /** @param {Problem} problem */
  #rejected({ lasting, code, detail, retryAfterMs }) {
    if (lasting) this.#stop('rejected', code, detail);
    else this.#retry(retryAfterMs, code, detail);
  }

  /** @param {number} [leastMs] @param {string|null} [code] @param {string|null} [detail] */
  #retry(leastMs = 0, code = null, detail = null) {
    this.#drop();
    this.#become('reconnecting', code, detail);
    const ms = Math.max(leastMs, backoffMs(this.#attempt++, this.#options.random));
    this.#timers.set('retry', ms, () => this.#connect());
  }

  /** @param {import('./page.js').Why} why */
  #back(why) {
    if (this.#line && !this.#line.overdue && why !== 'online') return; // the connection was never lost
    this.#attempt = 0;
    this.#connect();
  }

  /** @param {Connection['state']} state @param {string|null} [code] @param {string|null} [detail] */
  #stop(state, code, detail) {
    this.#unfollow?.();
    this.#unfollow = null;
    this.#drop();
    this.#become(state, code, detail);
  }

  #drop() {
    this.#question = null;
    this.#line?.close();
    this.#line = null;
    this.#timers.clearAll();
  }

  /** @param {Connection['state']} state @param {string|null} [code] @param {string|null} [detail] */
  #become(state, code = null, detail = null) {
    const before = this.connection;
    if (before.state === state && before.code === code) return;
    const since = before.state === state ? before.since : this.#options.clock.now();
    this.connection = { state, code, detail, since };
    this.#options.onChange(this);
  }
}
