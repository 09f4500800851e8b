/** Follows the operations of all windows of a browser over one stream, and sends each window what it wants. */

/** @import {Clock} from './clock.js' */
/** @import {Event, OperationState, HubMessage, Wanted} from './types.js' */

import { systemClock, Timers } from './clock.js';
import { begin, fold } from './fold.js';
import { MultiStream } from './multi-stream.js';
import { Operations } from './operations.js';

/** Heartbeat interval: each window repeats what it wants. So the hub notices a closed window, and a window a dead hub. */
export const HEARTBEAT_MS = 5_000;
const PATIENCE_MS = 6 * HEARTBEAT_MS;
const FLUSH_MS = 50;

/**
 * @typedef {object} Member A window.
 * @property {(message: HubMessage) => void} send
 * @property {Set<string>} ids
 * @property {string|null} logOf
 * @property {number} receivedAt
 * @property {Event[]} waiting events that will be sent to it soon
 */

export class Hub {
  /** @type {Set<Member>} */ #members = new Set();
  /** The state of each operation so far, for windows that open later. @type {Map<string, OperationState>} */ #known = new Map();
  /** @type {string|null} */ #principal = null;
  #principalAt = 0;
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
      missing: (ids) => this.#sendToInterested(ids, (missing) => ({ missing })),
      gone: (id) => this.#sendToInterested([id], (gone) => ({ gone })),
      change: () => this.#sendToAll(this.#connection()),
    });
  }

  /** Add a window. @param {(message: HubMessage) => void} send @returns {Member} */
  join(send) {
    return { send, ids: new Set(), logOf: null, receivedAt: 0, waiting: [] };
  }

  /**
   * Receive what a window wants. Windows repeat it every `HEARTBEAT_MS`.
   * @param {Member} member @param {Wanted} wanted
   * @param {import('./page.js').Why|null} [back] set if it has just become visible, or is online again
   */
  want(member, wanted, back = null) {
    this.#members.add(member);
    member.receivedAt = this.#clock.now();
    if (wanted.ids.length > 0 && !this.#isSamePrincipal(member, wanted)) return;
    const added = wanted.ids.filter((id) => !member.ids.has(id) || (id === wanted.logOf && id !== member.logOf));
    member.ids = new Set(wanted.ids);
    member.logOf = wanted.logOf;
    member.send({ ...this.#connection(), events: this.#snapshots(added), missing: added.filter((id) => this.#stream.hasReleased(id)) });
    this.#steer();
    if (back) this.#stream.hasten(back === 'online');
    else this.#stream.check();
  }

  /** Remove a window that was closed or is hidden. @param {Member} member */
  leave(member) {
    this.#members.delete(member);
    this.#steer();
  }

  /** Stop following operations. */
  close() {
    this.#members.clear();
    this.#timers.clearAll();
    this.#stream.close();
  }

  /**
   * Whether a window is of the current principal. The browser has one set of cookies, so the principal that the server
   * reported last is that of all windows. Windows with another one have to ask the server again.
   * @param {Member} member @param {Wanted} wanted
   */
  #isSamePrincipal(member, { principal, at }) {
    if (principal !== this.#principal && at <= this.#principalAt) {
      member.ids = new Set();
      member.send({ recheck: true });
      return false;
    }
    const others = principal !== this.#principal && this.#principal !== null;
    this.#principal = principal;
    this.#principalAt = Math.max(at, this.#principalAt);
    if (others) this.#restart(member);
    return true;
  }

  /** Close what was opened for another principal. @param {Member} member the window that reported the new one */
  #restart(member) {
    this.#stream.close();
    this.#known.clear();
    for (const other of this.#members) {
      other.ids = new Set();
      other.waiting = [];
      if (other !== member) other.send({ recheck: true });
    }
  }

  /** Let the stream follow what the active windows want. A window is active if it sent a heartbeat recently. */
  #steer() {
    const now = this.#clock.now();
    for (const member of this.#members) if (now - member.receivedAt > PATIENCE_MS) this.#members.delete(member);
    const wanted = this.#wanted();
    for (const id of this.#known.keys()) if (!wanted.has(id)) this.#known.delete(id);
    this.#stream.follow([...wanted], [...this.#members].some(({ logOf }) => logOf !== null));
    if (this.#members.size > 0) this.#timers.set('steer', PATIENCE_MS + HEARTBEAT_MS, () => this.#steer());
  }

  /** The wanted operations: the first of each window, then the second of each, and so on. @returns {Set<string>} */
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
      if (events.length > 0) member.send({ events });
    }
  }

  /** @param {string[]} ids @returns {Event[]} */
  #snapshots(ids) {
    return ids.flatMap((id) => {
      const { operation = null, n = 0 } = this.#known.get(id) ?? {};
      return operation ? [{ type: 'snapshot', position: null, operation: id, n, time: 0, data: operation, reset: null }] : [];
    });
  }

  /** @param {string[]} ids of which no more events will come @param {(ids: string[]) => HubMessage} messageFor */
  #sendToInterested(ids, messageFor) {
    for (const id of ids) this.#known.delete(id);
    for (const member of this.#members) {
      const wanted = ids.filter((id) => member.ids.has(id));
      if (wanted.length > 0) member.send(messageFor(wanted));
    }
  }

  /** @returns {HubMessage} */
  #connection() {
    return { connection: this.#stream.connection, followed: [...this.#stream.followed] };
  }

  /** @param {HubMessage} message */
  #sendToAll(message) {
    for (const member of this.#members) member.send(message);
  }
}

