/** The list of operations, polled while the page is visible, and the health of the server. */

/** @import {Operation} from '../client/types.js' */
/** @import {Operations, Problem} from '../client/operations.js' */
/** @import {Clock} from '../client/clock.js' */
/** @import {Page} from '../client/page.js' */

import { backoffMs, systemClock, Timers } from '../client/clock.js';
import { followPage, hidden } from '../client/page.js';

export const REFRESH_MS = 2_000;
const LIMIT = 50;
const MAX_PAGES = 10;

/**
 * @typedef {object} Health
 * @property {'connecting'|'live'|'reconnecting'|'unreachable'|'rejected'|'paused'} state
 * @property {number} since milliseconds since 1970
 * @property {string} detail
 * @property {string|null} code the error code of a rejection
 */

export class Listing {
  /** @type {Health} */ health;
  /** When the page became visible, in milliseconds since 1970. */ lookedAt = 0;
  #operations;
  #onList;
  #onHealth;
  #clock;
  #random;
  #page;
  #timers;
  #failures = 0;
  #failedAt = 0;
  /** @type {AbortController|null} */ #asking = null;

  /**
   * @param {object} options
   * @param {Operations} options.operations
   * @param {(list: Operation[], complete: boolean) => void} options.onList `complete` is true if there are no more
   * @param {(health: Health) => void} options.onHealth
   * @param {Clock} [options.clock] @param {() => number} [options.random] @param {Page} [options.page]
   */
  constructor({ operations, onList, onHealth, clock = systemClock, random = Math.random, page = globalThis }) {
    this.#operations = operations;
    this.#onList = onList;
    this.#onHealth = onHealth;
    this.#clock = clock;
    this.#random = random;
    this.#page = page;
    this.#timers = new Timers(clock);
    this.health = { state: 'connecting', since: clock.now(), detail: '', code: null };
  }

  start() {
    followPage(this.#page, { away: () => this.#pause(), back: () => this.#look(), hiddenIsAway: true });
    if (hidden(this.#page)) this.#pause();
    else this.#look();
  }

  #look() {
    this.lookedAt = this.#clock.now();
    this.refresh();
  }

  /** Refresh now, and cancel the planned refresh. */
  async refresh() {
    this.#timers.clearAll();
    this.#asking?.abort();
    const asking = this.#asking = new AbortController();
    try {
      let page = await this.#operations.list({ limit: LIMIT }, asking.signal);
      const found = page.operations;
      for (let pages = 1; page.next_cursor && found.length < LIMIT && pages < MAX_PAGES; pages++) { // a page may be short
        page = await this.#operations.list({ limit: LIMIT - found.length, cursor: page.next_cursor }, asking.signal);
        found.push(...page.operations);
      }
      if (asking.signal.aborted) return;
      this.#failures = 0;
      this.#onList(found, page.next_cursor == null);
      this.#become('live', this.#clock.now());
      this.#timers.set('refresh', REFRESH_MS, () => this.refresh());
    } catch (error) {
      if (asking.signal.aborted) return;
      this.#failed(/** @type {Problem} */ (error));
    }
  }

  /** @param {Problem} problem */
  #failed(problem) {
    if (this.#failures === 0) this.#failedAt = this.#clock.now();
    const bad = problem.lasting ? 'rejected' : 'unreachable';
    const state = this.#failures === 0 && !problem.lasting ? 'reconnecting' : bad; // a single failure may be temporary
    this.#become(state, this.#failedAt, problem.status === 0 ? '' : problem.detail, problem.code);
    const ms = Math.max(problem.retryAfterMs, backoffMs(this.#failures++, this.#random));
    this.#timers.set('refresh', ms, () => this.refresh());
  }

  #pause() {
    this.#asking?.abort();
    this.#timers.clearAll();
    this.#become('paused', this.#clock.now());
  }

  /** @param {Health['state']} state @param {number} since @param {string} [detail] @param {string|null} [code] */
  #become(state, since, detail = '', code = null) {
    const before = this.health;
    if (before.state === state && before.detail === detail) return;
    this.health = { state, since: before.state === state ? before.since : since, detail, code };
    this.#onHealth(this.health);
  }
}
