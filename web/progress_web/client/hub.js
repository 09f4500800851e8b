/** What a browser's windows show, followed over one stream: each window is told of what it wants. */

/** @import {Clock} from './clock.js' */
/** @import {Event, OperationState, Told, Wanted} from './types.js' */

import { systemClock, Timers } from './clock.js';
import { begin, fold } from './fold.js';
import { MultiStream } from './multi-stream.js';
import { Operations } from './operations.js';

/** How often a window says what it wants, so that the hub knows of its end, and the window of the hub's. */
export const BEAT_MS = 5_000;
const PATIENCE_MS = 6 * BEAT_MS;
const FLUSH_MS = 50;

/**
 * @typedef {object} Member A window.
 * @property {(told: Told) => void} tell
 * @property {Set<string>} ids
 * @property {string|null} logOf
 * @property {number} heardAt
 * @property {Event[]} waiting events that it is told soon
 */

export class Hub {
  /** @type {Set<Member>} */ #members = new Set();
  /** What the stream has told so far, for windows that come later. @type {Map<string, OperationState>} */ #known = new Map();
  /** @type {string|null} */ #who = null;
  #whoAt = 0;
  #flushing = false;
  #clock;
  #timers;
  #stream;

  /**
   * @param {object} [tools]
   * @param {Operations} [tools.operations] @param {typeof globalThis.EventSource} [tools.EventSource]
   * @param {Clock} [tools.clock] @param {() => number} [tools.random]
   */
  constructor({ operations = new Operations(), EventSource = globalThis.EventSource, clock = systemClock, random = Math.random } = {}) {
    this.#clock = clock;
    this.#timers = new Timers(clock);
    this.#stream = new MultiStream({ operations, EventSource, clock, random }, {
      event: (event) => this.#event(event),
      missing: (ids) => this.#tellWanting(ids, (missing) => ({ missing })),
      gone: (id) => this.#tellWanting([id], (gone) => ({ gone })),
      change: () => this.#tellAll(this.#connection()),
    });
  }

  /** A window has come. @param {(told: Told) => void} tell @returns {Member} */
  join(tell) {
    return { tell, ids: new Set(), logOf: null, heardAt: 0, waiting: [] };
  }

  /**
   * A window says what it wants, which it repeats every `BEAT_MS`.
   * @param {Member} member @param {Wanted} wanted
   * @param {import('./page.js').Why|null} [back] it has just come into sight, or online
   */
  hear(member, wanted, back = null) {
    this.#members.add(member);
    member.heardAt = this.#clock.now();
    if (wanted.ids.length > 0 && !this.#isSamePrincipal(member, wanted)) return;
    const news = wanted.ids.filter((id) => !member.ids.has(id) || (id === wanted.logOf && id !== member.logOf));
    member.ids = new Set(wanted.ids);
    member.logOf = wanted.logOf;
    member.tell({ ...this.#connection(), events: this.#snapshots(news), missing: news.filter((id) => this.#stream.hasReleased(id)) });
    this.#steer();
    if (back) this.#stream.hasten(back === 'online');
    else this.#stream.check();
  }

  /** A window has gone, or is out of sight. @param {Member} member */
  leave(member) {
    this.#members.delete(member);
    this.#steer();
  }

  /** Follow nothing any more. */
  close() {
    this.#members.clear();
    this.#timers.clearAll();
    this.#stream.close();
  }

  /**
   * The browser has one set of cookies, so the principal that the server named last is the one of all windows: those
   * that were told another one before have to ask again.
   * @param {Member} member @param {Wanted} wanted
   */
  #isSamePrincipal(member, { who, at }) {
    if (who !== this.#who && at <= this.#whoAt) {
      member.ids = new Set();
      member.tell({ doubt: true });
      return false;
    }
    const others = who !== this.#who && this.#who !== null;
    this.#who = who;
    this.#whoAt = Math.max(at, this.#whoAt);
    if (others) this.#beginAnew(member);
    return true;
  }

  /** What was opened for somebody else ends. @param {Member} member the window that told of it */
  #beginAnew(member) {
    this.#stream.close();
    this.#known.clear();
    for (const other of this.#members) {
      other.ids = new Set();
      other.waiting = [];
      if (other !== member) other.tell({ doubt: true });
    }
  }

  /** Have the stream follow what windows want that were heard of lately. */
  #steer() {
    const now = this.#clock.now();
    for (const member of this.#members) if (now - member.heardAt > PATIENCE_MS) this.#members.delete(member);
    const wanted = this.#wanted();
    for (const id of this.#known.keys()) if (!wanted.has(id)) this.#known.delete(id);
    this.#stream.follow([...wanted], [...this.#members].some(({ logOf }) => logOf !== null));
    if (this.#members.size > 0) this.#timers.set('steer', PATIENCE_MS + BEAT_MS, () => this.#steer());
  }

  /** The first of each window, then the second of each, … @returns {Set<string>} */
  #wanted() {
    const lists = [...this.#members].map(({ ids }) => [...ids]);
    const ranks = Array.from({ length: Math.max(0, ...lists.map(({ length }) => length)) }, (_, rank) => rank);
    return new Set(ranks.flatMap((rank) => lists.filter(({ length }) => length > rank).map((list) => list[rank])));
  }

  /** @param {Event} event */
  #event(event) {
    const id = event.operation;
    if (event.type === 'end') this.#known.delete(id);
    else this.#known.set(id, { ...fold(this.#known.get(id) ?? begin(), event), log: [] });
    for (const member of this.#members) {
      if (member.ids.has(id) && (event.type !== 'log' || member.logOf === id)) member.waiting.push(event);
    }
    if (this.#flushing) return;
    this.#flushing = true;
    this.#clock.setTimeout(() => this.#flush(), FLUSH_MS);
  }

  #flush() {
    this.#flushing = false;
    for (const member of this.#members) {
      const events = member.waiting;
      member.waiting = [];
      if (events.length > 0) member.tell({ events });
    }
  }

  /** @param {string[]} ids @returns {Event[]} */
  #snapshots(ids) {
    return ids.flatMap((id) => {
      const { operation = null, n = 0 } = this.#known.get(id) ?? {};
      return operation ? [{ type: 'snapshot', position: null, operation: id, n, time: 0, data: operation, reset: null }] : [];
    });
  }

  /** @param {string[]} ids that nothing more is told of @param {(ids: string[]) => Told} told */
  #tellWanting(ids, told) {
    for (const id of ids) this.#known.delete(id);
    for (const member of this.#members) {
      const wanted = ids.filter((id) => member.ids.has(id));
      if (wanted.length > 0) member.tell(told(wanted));
    }
  }

  /** @returns {Told} */
  #connection() {
    return { connection: this.#stream.connection, followed: [...this.#stream.followed] };
  }

  /** @param {Told} told */
  #tellAll(told) {
    for (const member of this.#members) member.tell(told);
  }
}

