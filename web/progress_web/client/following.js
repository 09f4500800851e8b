/** One window's subscription to the stream that all windows of a browser share. */

/** @import {Clock} from './clock.js' */
/** @import {Page, Why} from './page.js' */
/** @import {Connection, Event, HubMessage, Wanted} from './types.js' */

import { backoffMs, systemClock, Timers } from './clock.js';
import { HEARTBEAT_MS, Hub } from './hub.js';
import { followPage, hidden } from './page.js';

const SILENCE_MS = 2.5 * HEARTBEAT_MS;
const MOST_FAILURES = 3; // then the window opens a stream of its own while it is visible
const WORKER = new URL('hub-worker.js', import.meta.url).href;
const NAME = 'progress-broker 2'; // change the number when messages change: a shared worker can outlive its release

/**
 * @typedef {object} Link The connection to the hub.
 * @property {(wanted: Wanted, back: Why|null) => void} want
 * @property {() => void} leave
 *
 * @typedef {(own: boolean, receive: (message: HubMessage) => void, fail: () => void) => Link} Connect
 */

export class Following {
  /** The state of the stream. @type {Connection} */ connection;
  /** The operations that the stream follows. @type {Set<string>} */ followed = new Set();
  /** @type {Wanted} */ #wanted = { ids: [], logOf: null, principal: '', at: 0 };
  #sent = '';
  /** @type {Link|null} */ #link = null;
  #receivedAt = 0;
  #failures = 0;
  #on;
  #clock;
  #random;
  #page;
  #connect;
  #timers;

  /**
   * @param {object} options
   * @param {(events: Event[]) => void} options.onEvents
   * @param {(ids: string[]) => void} options.onMissing no more events of these will come: they have ended, or were deleted
   * @param {(ids: string[]) => void} options.onGone these were deleted or have expired
   * @param {() => void} options.onChange `connection` or `followed` has changed
   * @param {() => void} options.onRecheck another user may have signed in; no events come until `want` names the user
   * @param {Connect} [options.connect]
   * @param {Clock} [options.clock] @param {() => number} [options.random] @param {Page} [options.page]
   */
  constructor({ connect = connectToHub, clock = systemClock, random = Math.random, page = globalThis, ...on }) {
    this.#on = on;
    this.#connect = connect;
    this.#clock = clock;
    this.#random = random;
    this.#page = page;
    this.#timers = new Timers(clock);
    this.connection = { state: 'closed', code: null, detail: null, since: clock.now() };
  }

  start() {
    followPage(this.#page, { away: () => this.#leave('paused'), back: (why) => this.#back(why), hiddenIsAway: true });
    if (!hidden(this.#page)) this.#join(null);
  }

  /** Set what this window wants. Calling it again with the same value is free. @param {Wanted} wanted */
  want(wanted) {
    this.#wanted = wanted;
    if (this.#link && JSON.stringify(wanted) !== this.#sent) this.#sendWanted(null);
  }

  /** @param {Why} why */
  #back(why) {
    if (this.#link) this.#sendWanted(why);
    else this.#join(why);
  }

  /** @param {Why|null} why */
  #join(why) {
    this.#timers.clearAll();
    this.#receivedAt = this.#clock.now();
    const receive = (/** @type {HubMessage} */ message) => {
      if (this.#link === link) this.#received(message);
    };
    const link = this.#link = this.#connect(this.#failures >= MOST_FAILURES, receive, () => {
      if (this.#link === link) this.#fail();
    });
    this.#sendWanted(why);
  }

  /** @param {Why|null} back */
  #sendWanted(back) {
    this.#sent = JSON.stringify(this.#wanted);
    this.#link?.want(this.#wanted, back);
    this.#timers.set('heartbeat', HEARTBEAT_MS, () => this.#heartbeat());
  }

  #heartbeat() {
    if (this.#clock.now() - this.#receivedAt > SILENCE_MS) this.#fail();
    else this.#sendWanted(null);
  }

  /** The hub can't be reached, or does not respond. */
  #fail() {
    this.#leave(null);
    this.#timers.set('join', backoffMs(this.#failures++, this.#random), () => this.#join('visible'));
  }

  /** @param {string|null} code */
  #leave(code) {
    this.#timers.clearAll();
    this.#link?.leave();
    this.#link = null;
    this.followed = new Set();
    this.connection = { state: 'closed', code, detail: null, since: this.#clock.now() };
    this.#on.onChange();
  }

  /** @param {HubMessage} message */
  #received({ connection, followed, events = [], missing = [], gone = [], recheck = false }) {
    this.#receivedAt = this.#clock.now();
    this.#failures = 0;
    if (connection) this.connection = connection;
    if (followed) this.followed = new Set(followed);
    if (events.length > 0) this.#on.onEvents(events);
    if (missing.length > 0) this.#on.onMissing(missing);
    if (gone.length > 0) this.#on.onGone(gone);
    if (recheck) this.#on.onRecheck();
    if (connection || followed) this.#on.onChange();
  }
}

/**
 * Connect to the hub that all windows share, if the browser has shared workers. Otherwise create a hub for this window.
 * @type {Connect}
 */
export function connectToHub(own, receive, fail) {
  if (own || !globalThis.SharedWorker) return ownHub(receive);
  try {
    return sharedHub(receive, fail);
  } catch {
    return ownHub(receive); // shared workers may be forbidden, for example if the page may not store data
  }
}

/** @type {{createScriptURL: (url: string) => any}|undefined} */
const scripts = /** @type {any} */ (globalThis).trustedTypes?.createPolicy('progress-broker', { createScriptURL: () => WORKER });

/** @param {(message: HubMessage) => void} receive @param {() => void} fail @returns {Link} */
function sharedHub(receive, fail) {
  const worker = new SharedWorker(scripts?.createScriptURL(WORKER) ?? WORKER, { type: 'module', name: NAME });
  const { port } = worker;
  worker.addEventListener('error', fail);
  port.addEventListener('close', fail); // not in all browsers
  port.addEventListener('message', ({ data }) => receive(data));
  port.start();
  return {
    want: (wanted, back) => port.postMessage({ wanted, back }),
    leave: () => {
      port.postMessage({ leave: true });
      port.close();
    },
  };
}

/** @param {(message: HubMessage) => void} receive @returns {Link} */
function ownHub(receive) {
  const hub = new Hub();
  const member = hub.join((message) => queueMicrotask(() => receive(message)));
  return { want: (wanted, back) => hub.want(member, wanted, back), leave: () => hub.close() };
}
