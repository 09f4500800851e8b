/** Clock and timers. They are passed in, so that tests can use their own. */

/**
 * @typedef {object} Clock
 * @property {() => number} now milliseconds since 1970
 * @property {(run: () => void, ms: number) => any} setTimeout
 * @property {(timer: any) => void} clearTimeout
 */

/** @type {Clock} */
export const systemClock = {
  now: () => Date.now(),
  setTimeout: (run, ms) => setTimeout(run, ms),
  clearTimeout: (timer) => clearTimeout(timer),
};

/** Named timers. Setting one replaces the timer of the same name. */
export class Timers {
  #clock;
  /** @type {Map<string, any>} */
  #running = new Map();

  /** @param {Clock} clock */
  constructor(clock) {
    this.#clock = clock;
  }

  /** @param {string} name @param {number} ms @param {() => void} run */
  set(name, ms, run) {
    this.clear(name);
    this.#running.set(name, this.#clock.setTimeout(() => {
      this.#running.delete(name);
      run();
    }, ms));
  }

  /** @param {string} name */
  clear(name) {
    this.#clock.clearTimeout(this.#running.get(name));
    this.#running.delete(name);
  }

  clearAll() {
    for (const name of [...this.#running.keys()]) this.clear(name);
  }
}

/**
 * Return the delay before the next attempt. It doubles from 1 s to 30 s, and a random part of up to half is
 * subtracted, so that pages that lost the server at the same time do not reconnect at the same time.
 * @param {number} attempt 0 for the first
 * @param {() => number} random
 */
export function backoffMs(attempt, random) {
  const most = Math.min(30_000, 1_000 * 2 ** attempt);
  return most / 2 + random() * (most / 2);
}
