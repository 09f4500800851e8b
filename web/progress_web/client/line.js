/** One EventSource, with a watchdog that notices a dead connection. */

/** @import {Clock} from './clock.js' */

import { Timers } from './clock.js';

// EventSource delivers only events with a registered name, so events with custom names are ignored.
const NAMES = ['snapshot', 'progress', 'log', 'status', 'child', 'children', 'end', 'reconnect', 'replaced', 'ping',
  'operations', 'missing', 'bookmark'];
const PING_MS = 15_000;
const SILENCE_MS = 2.5 * PING_MS;
const SETTLE_MS = 300; // a rejection follows at once after the opening; a connection is live only after this time
const CLOSED = 2;

/**
 * @typedef {object} Ears
 * @property {() => void} live the connection is open and was not rejected
 * @property {(name: string, message: MessageEvent) => void} event
 * @property {() => void} broken the browser lost the connection and reconnects by itself
 * @property {() => void} gaveUp the browser lost the connection and does not reconnect
 * @property {() => void} silent no data, not even a ping, for so long that the connection must be dead
 */

export class Line {
  #source;
  #clock;
  #timers;
  #ears;
  #heardAt = 0;

  /**
   * @param {string} url with `ping=event`; without pings, silence would not mean a dead connection
   * @param {{EventSource: typeof globalThis.EventSource, clock: Clock}} tools
   * @param {Ears} ears
   */
  constructor(url, { EventSource, clock }, ears) {
    this.#clock = clock;
    this.#timers = new Timers(clock);
    this.#ears = ears;
    const source = this.#source = new EventSource(url);
    source.onopen = () => this.#opened();
    source.onerror = () => this.#failed();
    for (const name of NAMES) source.addEventListener(name, (message) => this.#heard(name, message));
    this.#alive();
  }

  /** Whether a ping is overdue. In a frozen page timers stop, so the watchdog may not have noticed. */
  get overdue() {
    return this.#clock.now() - this.#heardAt > 1.2 * PING_MS;
  }

  close() {
    this.#timers.clearAll();
    const source = this.#source;
    source.onopen = source.onerror = null;
    source.close(); // after this it fires no events
  }

  #opened() {
    this.#alive();
    this.#timers.set('settled', SETTLE_MS, this.#ears.live);
  }

  #failed() {
    this.#alive();
    this.#timers.clear('settled');
    if (this.#source.readyState === CLOSED) this.#ears.gaveUp();
    else this.#ears.broken();
  }

  /** @param {string} name @param {MessageEvent} message */
  #heard(name, message) {
    this.#alive();
    this.#timers.clear('settled');
    if (name !== 'reconnect') this.#ears.live();
    this.#ears.event(name, message);
  }

  #alive() {
    this.#heardAt = this.#clock.now();
    this.#timers.set('timeout', SILENCE_MS, this.#ears.silent);
  }
}
