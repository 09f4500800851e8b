/** Time and chance, as things that can be handed in: a test brings its own. */

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

/** Timers by name: setting one replaces the one of that name. */
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
 * How long to wait before the next try: doubling from 1 s to 30 s, of which the upper half is chance, so that
 * pages that lost the server together don't come back together.
 * @param {number} attempt 0 for the first
 * @param {() => number} random
 */
export function backoffMs(attempt, random) {
  const most = Math.min(30_000, 1_000 * 2 ** attempt);
  return most / 2 + random() * (most / 2);
}
