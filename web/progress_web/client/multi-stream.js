/** Many operations, followed over one EventSource; which ones may change at any time. */

/** @import {Clock} from './clock.js' */
/** @import {Operations, Problem} from './operations.js' */
/** @import {Connection, Event} from './types.js' */

import { backoffMs, Timers } from './clock.js';
import { decode } from './frame.js';
import { Line } from './line.js';

const TYPES = ['progress', 'status', 'child']; // and `snapshot` and `end`, which always come
const INTERVAL_MS = 250;
const MOST_URL_CHARACTERS = 6_000; // proxies refuse longer request lines, many from 8 KiB on
const GATHER_MS = 100; // windows tell one by one what they want
const SPACING_MS = 1_000; // each opening begins with a snapshot of every operation
const DOUBT_MS = 1_000;
const LINGER_MS = 2_000; // from one window to another, for a moment nobody looks
const RELEASED_MS = 30_000;

/**
 * @typedef {object} Listener
 * @property {(event: Event) => void} event
 * @property {(ids: string[]) => void} missing nothing more is told of these, and nobody said why
 * @property {(id: string) => void} gone it was deleted, or has expired
 * @property {() => void} change `connection` or `followed` is another
 */

export class MultiStream {
  /** @type {Connection} */ connection;
  /** What the server says it follows. @type {Set<string>} */ followed = new Set();
  /** @type {string[]} */ #wanted = [];
  #wantsLog = false;
  /** What the open stream was asked for, without what has ended. @type {Set<string>} */ #asked = new Set();
  #askedLog = false;
  /** Operations of which nothing more was to be told, and until when that is believed. @type {Map<string, number>} */ #released = new Map();
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
   * Follow these, the most important first, and no others.
   * @param {string[]} ids @param {boolean} log whether their log lines are wanted
   */
  follow(ids, log) {
    this.#wanted = ids;
    this.#wantsLog = log;
    const fitting = this.#fitting();
    if (fitting.length > 0) this.#timers.clear('close');
    else if (this.connection.state !== 'closed' || this.#planned) this.#timers.set('close', LINGER_MS, () => this.close());
    if (fitting.length > 0 && !this.#covers(fitting)) this.#plan();
  }

  /** Whether nothing more was to be told of an operation, a short while ago. @param {string} id */
  hasReleased(id) {
    return (this.#released.get(id) ?? 0) > this.#tools.clock.now();
  }

  /** Open anew at once a connection that is dead without a sign. */
  check() {
    if (this.#line?.overdue) this.#openNow();
  }

  /** Try again at once, as somebody looks; on another network, whatever seems to be open. @param {boolean} network */
  hasten(network) {
    const waits = this.#attempt > 0 || this.connection.state === 'reconnecting' || this.#replaced;
    const old = network && this.#tools.clock.now() - this.#openedAt > SPACING_MS; // all windows tell of the network
    if (waits || old || this.#line?.overdue) this.#openNow();
  }

  #openNow() {
    this.#replaced = false;
    this.#attempt = 0;
    this.#open();
  }

  /** Follow nothing, and forget where the stream was. */
  close() {
    this.#drop();
    this.#timers.clear('close');
    this.#asked.clear();
    this.followed = new Set();
    this.#cursor = null;
    this.#attempt = 0;
    this.#most = Infinity;
    this.#become('closed');
  }

  /** The wanted operations that one stream has room for. */
  #fitting() {
    let room = MOST_URL_CHARACTERS;
    const open = this.#wanted.filter((id) => !this.hasReleased(id)).slice(0, this.#most);
    return open.filter((id) => (room -= '&operation='.length + id.length) >= 0);
  }

  /** @param {string[]} ids */
  #covers(ids) {
    const enough = ids.every((id) => this.#asked.has(id)) && (this.#askedLog || !this.#wantsLog);
    return enough && this.#asked.size <= 2 * ids.length + 20; // a few too many cost less than opening anew
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
    if (!this.#covers(ids)) { // a cursor tells nothing of operations that it does not know
      this.#asked = new Set(ids);
      this.#askedLog = this.#wantsLog;
      this.#cursor = null;
    }
    const types = this.#askedLog ? [...TYPES, 'log'] : TYPES;
    const url = this.#tools.operations.streamOfManyUrl([...this.#asked], { cursor: this.#cursor, intervalMs: INTERVAL_MS, types });
    if (this.connection.state === 'closed' || this.connection.state === 'refused') this.#become('connecting');
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
    if (event === null || name === 'ping') return;
    if (name === 'operations') this.#begin(event.data.operations);
    else if (name === 'missing') this.#miss(event.data);
    else if (this.#asked.has(event.operation)) {
      this.#on.event({ ...event, position: null }); // its id is the stream's cursor, and no position of the operation
      if (name === 'end') this.#release([event.operation]);
    }
  }

  /** @param {string[]} ids those that the server follows */
  #begin(ids) {
    this.followed = new Set(ids);
    this.#on.change();
    this.#timers.set('doubt', DOUBT_MS, () => this.#lose([...this.#asked].filter((id) => !this.followed.has(id))));
  }

  /** @param {{operation: string, reason: string}} missing */
  #miss({ operation: id, reason }) {
    if (reason !== 'gone') return this.#lose([id]);
    this.#release([id]);
    this.#on.gone(id);
  }

  /** A newer connection has taken its place: coming back by itself, it would take that one's. */
  #replace() {
    this.#drop();
    this.#replaced = true;
    this.#become('refused', 'replaced', 'a newer connection of yours has taken its place');
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
      this.#asked.delete(id);
      this.followed.delete(id);
      this.#released.set(id, now + RELEASED_MS);
    }
    if (this.#asked.size > 0) return;
    this.#drop(); // the server would close it now, and a browser would come back to hear so
    this.#become('closed');
    if (this.#fitting().length > 0) this.#plan();
  }

  /** The browser gave up and can't say on what status, so ask for it. @param {string} url */
  async #ask(url) {
    this.#drop();
    this.#become('reconnecting', this.connection.state === 'reconnecting' ? this.connection.code : null);
    const question = this.#question = {};
    const answer = await this.#tools.operations.statusOf(url).catch((/** @type {Problem} */ problem) => problem);
    if (question !== this.#question) return; // opened or closed in the meantime
    const status = answer instanceof Error ? answer.status : answer;
    if (status === 204 || status === 404 || status === 410) return this.#lose([...this.#asked]);
    if (status === 422) this.#askForLess();
    if (answer instanceof Error && status !== 422) this.#retry(answer.code, answer);
    else this.#retry();
  }

  /** The server takes no such cursor any more, or not so many operations. */
  #askForLess() {
    if (this.#cursor === null) this.#most = Math.max(1, Math.floor(this.#asked.size / 2));
    this.#asked.clear();
  }

  /** @param {string|null} [code] @param {Problem|null} [problem] */
  #retry(code = null, problem = null) {
    this.#drop();
    this.#become(problem?.lasting ? 'refused' : 'reconnecting', code, problem?.detail ?? null);
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
    this.#timers.clear('doubt');
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
