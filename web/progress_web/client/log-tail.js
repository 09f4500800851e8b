/** An operation's log: stored lines are read from the history, later lines come from the stream. */

/** @import {Clock} from './clock.js' */
/** @import {Operations, Problem} from './operations.js' */
/** @import {Event, History, Operation} from './types.js' */

import { systemClock, Timers } from './clock.js';

const AGAIN_MS = 2_000;

export class LogTail {
  /** Why reading has failed. @type {Problem|null} */ problem = null;
  /** Whether the stored lines have been read. */
  read = false;
  /** @type {string|null} */ #position = null;
  #n = 0; // all log lines up to this event are known
  #due = 0; // number of events that are known to exist
  #reading = false;
  #closed = false;
  /** Lines that arrived while older ones were read. @type {Event[]} */ #waiting = [];
  #id;
  #operations;
  #onEvents;
  #timers;

  /**
   * @param {string} id
   * @param {{operations: Operations, onEvents: (events: Event[]) => void, clock?: Clock}} options `onEvents` is also
   *   called, without events, if only `problem` or `read` has changed
   */
  constructor(id, { operations, onEvents, clock = systemClock }) {
    this.#id = id;
    this.#operations = operations;
    this.#onEvents = onEvents;
    this.#timers = new Timers(clock);
  }

  /**
   * Read on, unless all lines up to this state are known. Events can be missing between two connections of a stream.
   * @param {Operation} operation from a snapshot of the stream, or from a list
   */
  catchUp({ events }) {
    this.#due = Math.max(this.#due, events);
    this.#readOn();
  }

  /** Start again: earlier positions are no longer valid. @param {Operation} operation */
  beginAnew({ events }) {
    this.#position = null;
    this.#n = 0;
    this.#due = events;
    this.#readOn();
  }

  /** Add a line from a stream. @param {Event} line an event `log` */
  hear(line) {
    if (this.#reading) this.#waiting.push(line);
    else if (this.#isBehind()) this.#due = Math.max(this.#due, line.n); // it will be read together with the lines before it
    else this.#take([line]);
  }

  close() {
    this.#closed = true;
    this.#timers.clearAll();
  }

  async #readOn() {
    if (this.#reading) return;
    this.#reading = true;
    try {
      while (!this.#closed && this.#isBehind()) await this.#readAll(this.#due);
      this.#take(this.#waiting);
    } catch (problem) {
      this.#due = Math.max(this.#due, ...this.#waiting.map(({ n }) => n));
      this.problem = /** @type {Problem} */ (problem);
      if (!this.problem.lasting && !this.#closed) this.#timers.set('again', AGAIN_MS, () => this.#readOn());
    }
    this.#waiting = [];
    this.#reading = false;
  }

  #isBehind() {
    return this.#due > this.#n || !this.read;
  }

  /** Read the stored lines. @param {number} due the minimum number of events that exist */
  async #readAll(due) {
    for (let more = true; more && !this.#closed;) {
      const after = this.#position;
      const page = await this.#operations.history(this.#id, { after, types: ['log'] });
      if (this.#closed) return;
      if (after !== this.#position) continue; // it was started again in the meantime
      this.#position = page.position;
      this.#onEvents(eventsOf(page));
      more = !page.done && (page.events.length > 0 || page.reset !== null);
    }
    this.#n = Math.max(this.#n, due);
    this.read = true;
    this.problem = null;
  }

  /** @param {Event[]} lines */
  #take(lines) {
    if (this.#closed) return;
    this.#n = Math.max(this.#n, ...lines.map(({ n }) => n));
    this.#onEvents(lines);
  }
}

/** @param {History} page @returns {Event[]} */
function eventsOf({ operation, events, snapshot, reset }) {
  const lines = events.map((event) => ({ ...event, position: null, reset: null }));
  if (!snapshot) return lines;
  // The page goes on after the last event that is left, which the state may be ahead of: lines with any number may be new.
  return [{ type: 'snapshot', position: null, operation, n: 0, time: Date.parse(snapshot.updated_at), data: snapshot, reset }, ...lines];
}
