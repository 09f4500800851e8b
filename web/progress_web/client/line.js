/** One EventSource, and whether anything is still coming through it. */

/** @import {Clock} from './clock.js' */

import { Timers } from './clock.js';

// EventSource hands over only names that were asked for, so custom events pass by unseen.
const NAMES = ['snapshot', 'progress', 'log', 'status', 'child', 'children', 'end', 'reconnect', 'replaced', 'ping',
  'operations', 'missing'];
const PING_MS = 15_000;
const SILENCE_MS = 2.5 * PING_MS;
const SETTLE_MS = 300; // a refusal follows the opening at once; only what outlives this is called live
const CLOSED = 2;

/**
 * @typedef {object} Ears
 * @property {() => void} live the line is open and was not refused
 * @property {(name: string, message: MessageEvent) => void} event
 * @property {() => void} broken the browser lost it and tries again by itself
 * @property {() => void} gaveUp the browser lost it for good
 * @property {() => void} silent nothing, not even a ping, for so long that the line must be dead
 */

export class Line {
  #source;
  #clock;
  #timers;
  #ears;
  #heardAt = 0;

  /**
   * @param {string} url with `ping=event`, or silence means nothing
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

  /** Whether a ping is overdue: timers stand still in a frozen page, so the watchdog may not have noticed. */
  get overdue() {
    return this.#clock.now() - this.#heardAt > 1.2 * PING_MS;
  }

  close() {
    this.#timers.clearAll();
    const source = this.#source;
    source.onopen = source.onerror = null;
    source.close(); // and from here on it fires nothing
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
    this.#timers.set('silence', SILENCE_MS, this.#ears.silent);
  }
}
