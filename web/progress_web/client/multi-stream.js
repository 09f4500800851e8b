/** Follows many operations over one EventSource. The set of operations can change at any time. */

/** @import {Clock} from './clock.js' */
/** @import {Operations, Problem} from './operations.js' */
/** @import {Connection, Event} from './types.js' */

import { backoffMs, Timers } from './clock.js';
import { decode } from './frame.js';
import { Line } from './line.js';

const TYPES = ['progress', 'status', 'child']; // `snapshot` and `end` are always sent
const INTERVAL_MS = 250;
const MOST_URL_CHARACTERS = 6_000; // many proxies reject request lines from 8 KiB on
const GATHER_MS = 100; // windows send what they want one after another; wait for all
const SPACING_MS = 1_000; // minimum time between two connections: each begins with a snapshot of every operation
const UNFOLLOWED_MS = 1_000;
const LINGER_MS = 2_000; // without windows, keep the stream this long: the user may be moving between windows
const RELEASED_MS = 30_000;

/**
 * @typedef {object} Listener
 * @property {(event: Event) => void} event
 * @property {(ids: string[]) => void} missing no more events of these will come, for an unknown reason
 * @property {(id: string) => void} gone it was deleted or has expired
 * @property {() => void} change `connection` or `followed` has changed
 */

export class MultiStream {
  /** @type {Connection} */ connection;
  /** The operations that the server follows on this stream. @type {Set<string>} */ followed = new Set();
  /** @type {string[]} */ #wanted = [];
  #wantsLog = false;
  /** The operations that the open stream requested, without those that have ended. @type {Set<string>} */ #requested = new Set();
  #requestedLog = false;
  /** Operations of which no more events will come, and until when this is assumed. @type {Map<string, number>} */ #released = new Map();
  /** @type {string|null} */ #cursor = null;
  /** @type {Line|null} */ #line = null;
  /** @type {object|null} */ #question = null;
  #planned = false;
  #replaced = false;
  #openedAt = 0;
  #attempt = 0;
  #most = Infinity;
  #tools;
  #timers;
  #on;

  /**
   * @param {{operations: Operations, EventSource: typeof globalThis.EventSource, clock: Clock, random: () => number}} tools
   * @param {Listener} on
   */
  constructor(tools, on) {
    this.#tools = tools;
    this.#on = on;
    this.#timers = new Timers(tools.clock);
    this.connection = { state: 'closed', code: null, detail: null, since: tools.clock.now() };
  }

  /**
   * Follow exactly these operations. The most important come first.
   * @param {string[]} ids @param {boolean} log whether to include their log lines
   */
  follow(ids, log) {
    this.#wanted = ids;
    this.#wantsLog = log;
    const fitting = this.#fitting();
    if (fitting.length > 0) this.#timers.clear('close');
    else if (this.connection.state !== 'closed' || this.#planned) this.#timers.set('close', LINGER_MS, () => this.close());
    if (fitting.length > 0 && !this.#covers(fitting)) this.#plan();
  }

  /** Whether an operation was recently reported as ended or missing. @param {string} id */
  hasReleased(id) {
    return (this.#released.get(id) ?? 0) > this.#tools.clock.now();
  }

  /** Reconnect at once if the connection is dead without an error. */
  check() {
    if (this.#line?.overdue) this.#openNow();
  }

  /**
   * Reconnect at once, because the page is visible again. After a change of the network, also replace an open connection.
   * @param {boolean} network
   */
  hasten(network) {
    const waits = this.#attempt > 0 || this.connection.state === 'reconnecting' || this.#replaced;
    const old = network && this.#tools.clock.now() - this.#openedAt > SPACING_MS; // each window reports the change; react once
    if (waits || old || this.#line?.overdue) this.#openNow();
  }

  #openNow() {
    this.#replaced = false;
    this.#attempt = 0;
    this.#open();
  }

  /** Stop following operations, and forget the cursor. */
  close() {
    this.#drop();
    this.#timers.clear('close');
    this.#requested.clear();
    this.followed = new Set();
    this.#cursor = null;
    this.#attempt = 0;
    this.#most = Infinity;
    this.#become('closed');
  }

  /** The wanted operations that fit into one stream. */
  #fitting() {
    let room = MOST_URL_CHARACTERS;
    const open = this.#wanted.filter((id) => !this.hasReleased(id)).slice(0, this.#most);
    return open.filter((id) => (room -= '&operation='.length + id.length) >= 0);
  }

  /** @param {string[]} ids */
  #covers(ids) {
    const enough = ids.every((id) => this.#requested.has(id)) && (this.#requestedLog || !this.#wantsLog);
    return enough && this.#requested.size <= 2 * ids.length + 20; // a few unneeded operations cost less than reconnecting
  }

  #plan() {
    if (this.#planned || this.#replaced) return;
    this.#planned = true;
    const wait = Math.max(GATHER_MS, this.#openedAt + SPACING_MS - this.#tools.clock.now());
    this.#timers.set('open', wait, () => this.#open());
  }

  #open() {
    this.#drop();
    const ids = this.#fitting();
    if (ids.length === 0) return this.close();
    if (!this.#covers(ids)) { // the cursor does not cover new operations
      this.#requested = new Set(ids);
      this.#requestedLog = this.#wantsLog;
      this.#cursor = null;
    }
    const types = this.#requestedLog ? [...TYPES, 'log'] : TYPES;
    const url = this.#tools.operations.streamOfManyUrl([...this.#requested], { cursor: this.#cursor, intervalMs: INTERVAL_MS, types });
    if (this.connection.state === 'closed' || this.connection.state === 'rejected') this.#become('connecting');
    this.#openedAt = this.#tools.clock.now();
    this.#line = new Line(url, this.#tools, {
      live: () => this.#live(),
      event: (name, message) => this.#heard(name, message),
      broken: () => this.#become('reconnecting', this.connection.state === 'reconnecting' ? this.connection.code : null),
      gaveUp: () => this.#ask(url),
      silent: () => this.#retry('silent'),
    });
  }

  #live() {
    this.#attempt = 0;
    this.#become('live');
  }

  /** @param {string} name @param {MessageEvent} message */
  #heard(name, message) {
    if (name === 'replaced') return this.#replace();
    if (message.lastEventId) this.#cursor = message.lastEventId;
    const event = decode(name, message.data, message.lastEventId);
    if (name === 'reconnect') return this.#become('reconnecting', event?.data.reason ?? null);
    if (event === null || name === 'ping' || name === 'bookmark') return;
    if (name === 'operations') this.#begin(event.data);
    else if (name === 'missing') this.#miss(event.data);
    else if (this.#requested.has(event.operation)) {
      this.followed.add(event.operation); // its lane may have been away when the stream began
      this.#on.event({ ...event, position: null }); // its id is the cursor of the stream, not a position of the operation
      if (name === 'end') this.#release([event.operation]);
    }
  }

  /** @param {{operations: string[], lanes_away?: number[]}} told the operations that the server follows */
  #begin({ operations: ids, lanes_away: away = [] }) {
    this.followed = new Set(ids);
    this.#on.change();
    this.#timers.clear('unfollowed');
    if (away.length > 0) return; // the others may be in lanes that the server can't reach now: it tells them later
    this.#timers.set('unfollowed', UNFOLLOWED_MS, () => this.#lose([...this.#requested].filter((id) => !this.followed.has(id))));
  }

  /** @param {{operation: string, reason: string}} missing */
  #miss({ operation: id, reason }) {
    if (reason !== 'gone') return this.#lose([id]);
    this.#release([id]);
    this.#on.gone(id);
  }

  /** A newer connection has replaced this one. Do not reconnect: that would replace the newer one. */
  #replace() {
    this.#drop();
    this.#replaced = true;
    this.#become('rejected', 'replaced', 'a newer connection of yours has replaced this one');
  }

  /** @param {string[]} ids */
  #lose(ids) {
    if (ids.length === 0) return;
    this.#release(ids);
    this.#on.missing(ids);
  }

  /** @param {string[]} ids */
  #release(ids) {
    const now = this.#tools.clock.now();
    for (const [id, until] of this.#released) if (until <= now) this.#released.delete(id);
    for (const id of ids) {
      this.#requested.delete(id);
      this.followed.delete(id);
      this.#released.set(id, now + RELEASED_MS);
    }
    if (this.#requested.size > 0) return;
    this.#drop(); // the server would now close it, and the browser would reconnect only to learn that
    this.#become('closed');
    if (this.#fitting().length > 0) this.#plan();
  }

  /** The browser gave up. It does not reveal the status, so request it. @param {string} url */
  async #ask(url) {
    this.#drop();
    this.#become('reconnecting', this.connection.state === 'reconnecting' ? this.connection.code : null);
    const question = this.#question = {};
    const answer = await this.#tools.operations.statusOf(url).catch((/** @type {Problem} */ problem) => problem);
    if (question !== this.#question) return; // it was opened or closed in the meantime
    const status = answer instanceof Error ? answer.status : answer;
    if (status === 204 || status === 404 || status === 410) return this.#lose([...this.#requested]);
    if (status === 422) this.#askForLess();
    if (answer instanceof Error && status !== 422) this.#retry(answer.code, answer);
    else this.#retry();
  }

  /** The server rejected the cursor, or the number of operations. */
  #askForLess() {
    if (this.#cursor === null) this.#most = Math.max(1, Math.floor(this.#requested.size / 2));
    this.#requested.clear();
  }

  /** @param {string|null} [code] @param {Problem|null} [problem] */
  #retry(code = null, problem = null) {
    this.#drop();
    this.#become(problem?.lasting ? 'rejected' : 'reconnecting', code, problem?.detail ?? null);
    const ms = Math.max(problem?.retryAfterMs ?? 0, backoffMs(this.#attempt++, this.#tools.random));
    this.#planned = true;
    this.#timers.set('open', ms, () => this.#open());
  }

  #drop() {
    this.#question = null;
    this.#line?.close();
    this.#line = null;
    this.#planned = false;
    this.#timers.clear('open');
    this.#timers.clear('unfollowed');
  }

  /** @param {Connection['state']} state @param {string|null} [code] @param {string|null} [detail] */
  #become(state, code = null, detail = null) {
    const before = this.connection;
    if (before.state === state && before.code === code) return;
    const since = before.state === state ? before.since : this.#tools.clock.now();
    this.connection = { state, code, detail, since };
    this.#on.change();
  }
}
