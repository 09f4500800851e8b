/** The calls a page makes, such as list, get and cancel; and the addresses of streams. */

/** @import {Clock} from './clock.js' */
/** @import {History, Operation} from './types.js' */

import { systemClock } from './clock.js';

/** Where the server is, seen from this file: it is served as `<server>/web/client/operations.js`. */
export const SERVER = new URL('../../', import.meta.url).href;

const TIMEOUT_MS = 10_000;
const LASTING = new Set([401, 403, 404, 410, 422]);
const DATE_MS = 5_000; // a `Date` is told in whole seconds, and may come late: less is no difference

/** A call that failed: refused by the server, or never answered. */
export class Problem extends Error {
  /**
   * @param {string} code the problem's stable `type`; `unreachable` or `timeout` when there was no answer
   * @param {string} detail what happened, for people
   * @param {{status?: number, retryAfterMs?: number}} [more] `status` 0 when there was no answer
   */
  constructor(code, detail, { status = 0, retryAfterMs = 0 } = {}) {
    super(detail);
    this.name = 'Problem';
    this.code = code;
    this.detail = detail;
    this.status = status;
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether trying again is in vain. */
  get lasting() {
    return LASTING.has(this.status);
  }
}

/** A server's operations. */
export class Operations {
  #base;
  #fetch;
  #clock;
  #token;
  #aheadMs = 0;

  /**
   * Without a `token` the browser proves who asks: by a cookie, if at all.
   * @param {object} [options]
   * @param {string} [options.base] @param {typeof globalThis.fetch} [options.fetch] @param {Clock} [options.clock]
   * @param {(() => string|Promise<string>)|null} [options.token] returns a token that is still good; asked at each call
   */
  constructor({ base = SERVER, fetch = (...call) => globalThis.fetch(...call), clock = systemClock, token = null } = {}) {
    this.#base = base;
    this.#fetch = fetch;
    this.#clock = clock;
    this.#token = token;
  }

  /** Whether a stream needs a ticket: an EventSource can't send a token. */
  get needsTickets() {
    return this.#token !== null;
  }

  /** The server's time, in milliseconds since 1970: a page's own may be wrong by minutes. */
  now() {
    return this.#clock.now() + this.#aheadMs;
  }

  /**
   * @param {Record<string, string|number>} [query] `limit`, `cursor`, `status`, …
   * @param {AbortSignal} [signal]
   * @returns {Promise<{operations: Operation[], next_cursor: string|null}>} newest change first
   */
  list(query = {}, signal) {
    const search = new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)]));
    return this.#call(`v1/operations?${search}`, { signal });
  }

  /** @param {string} id @param {{children?: boolean}} [include] `children` to list those too @returns {Promise<Operation>} */
  get(id, { children = false } = {}) {
    return this.#call(`v1/operations/${encodeURIComponent(id)}${children ? '?include=children' : ''}`);
  }

  /**
   * A page of an operation's events, oldest first.
   * @param {string} id
   * @param {{after?: string|null, types?: string[]}} [from] `after` is the `position` of the page before
   * @returns {Promise<History>}
   */
  history(id, { after = null, types = [] } = {}) {
    const search = new URLSearchParams({ limit: '1000' });
    if (after) search.set('after', after);
    if (types.length > 0) search.set('types', types.join(','));
    return this.#call(`v1/operations/${encodeURIComponent(id)}/events?${search}`);
  }

  /**
   * Ask the worker to stop; by force, end the operation whatever its worker does.
   * @param {string} id @param {string} reason @param {boolean} [force] @returns {Promise<Operation>}
   */
  cancel(id, reason, force = false) {
    return this.#call(`v1/operations/${encodeURIComponent(id)}/cancel`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ reason, force }),
    });
  }

  /**
   * Get what opens an operation's stream, once, within a minute.
   * @param {string} id @returns {Promise<string>}
   */
  async ticket(id) {
    const { ticket } = await this.#call(`v1/operations/${encodeURIComponent(id)}/tickets`, { method: 'POST' });
    return ticket;
  }

  /**
   * How people prove who they are, and where they sign in, if that is told: nobody has to prove anything to ask this.
   * @returns {Promise<{by: 'nobody'|'token'|'back-end', url: string|null}>}
   */
  waysToSignIn() {
    return this.#call('web/sign-in.json');
  }

  /**
   * Who the server takes us for: `principal` is empty where it asks nobody, and `kept` tells of a token in a cookie.
   * @returns {Promise<{principal: string, kept: boolean}>}
   */
  session() {
    return this.#call('v1/session');
  }

  /** Have the browser keep a token, in a cookie that scripts can't read. @param {string} token @returns {Promise<void>} */
  signIn(token) {
    return this.#call('v1/session', { method: 'POST', headers: { Authorization: `Bearer ${token}` } });
  }

  /** Have the browser forget it. @returns {Promise<void>} */
  signOut() {
    return this.#call('v1/session', { method: 'DELETE' });
  }

  /**
   * The address of an operation's events, for EventSource: pings come as events, so that silence can be noticed.
   * @param {string} id
   * @param {{position?: string|null, fromStart?: boolean, intervalMs?: number, children?: boolean,
   *   ticket?: string|null}} [start]
   */
  streamUrl(id, { position = null, fromStart = false, intervalMs = 0, children = false, ticket = null } = {}) {
    const url = new URL(`v1/operations/${encodeURIComponent(id)}/stream`, this.#base);
    url.searchParams.set('ping', 'event');
    if (intervalMs > 0) url.searchParams.set('interval_ms', String(intervalMs));
    if (children) url.searchParams.set('children', 'true');
    if (position) url.searchParams.set('last_event_id', position);
    else if (fromStart) url.searchParams.set('from', 'start');
    if (ticket) url.searchParams.set('ticket', ticket);
    return url.href;
  }

  /**
   * The address of the events of many operations on one stream, for EventSource.
   * @param {string[]} ids
   * @param {{cursor?: string|null, intervalMs?: number, types?: string[]}} [how] `cursor`: the id of the last event
   */
  streamOfManyUrl(ids, { cursor = null, intervalMs = 0, types = [] } = {}) {
    const url = new URL('v1/stream', this.#base);
    url.searchParams.set('ping', 'event');
    if (intervalMs > 0) url.searchParams.set('interval_ms', String(intervalMs));
    if (types.length > 0) url.searchParams.set('types', types.join(','));
    if (cursor) url.searchParams.set('last_event_id', cursor);
    for (const id of ids) url.searchParams.append('operation', id);
    return url.href;
  }

  /**
   * Ask what a stream's address is answered: EventSource does not tell why it gave up. Rejects with the `Problem`.
   * @param {string} url @returns {Promise<number>} the status: 200, or 204 where nothing more will come
   */
  statusOf(url) {
    return this.#call(url, { method: 'HEAD' }, ({ status }) => status);
  }

  /** @param {string|null} date */
  #heard(date) {
    const ahead = Date.parse(date ?? '') - this.#clock.now();
    if (!Number.isNaN(ahead)) this.#aheadMs = Math.abs(ahead) < DATE_MS ? 0 : ahead;
  }

  /**
   * @param {string} path @param {RequestInit} [init]
   * @param {(response: Response) => any} [read] what a success brings
   * @returns {Promise<any>}
   */
  async #call(path, init = {}, read = (response) => (response.status === 204 ? undefined : response.json())) {
    const timeout = AbortSignal.timeout(TIMEOUT_MS);
    const signal = init.signal ? AbortSignal.any([init.signal, timeout]) : timeout;
    const headers = new Headers({ Accept: 'application/json', .../** @type {Record<string, string>} */ (init.headers) });
    if (this.#token) headers.set('Authorization', `Bearer ${await this.#token()}`);
    try {
      const response = await this.#fetch(new URL(path, this.#base).href, { ...init, headers, signal });
      this.#heard(response.headers.get('Date'));
      if (!response.ok) throw await problemOf(response);
      return await read(response);
    } catch (error) {
      if (error instanceof Problem || init.signal?.aborted) throw error;
      if (timeout.aborted) throw new Problem('timeout', `The server did not answer within ${TIMEOUT_MS / 1000} s.`);
      throw new Problem('unreachable', "The server can't be reached.");
    }
  }
}

/**
 * What a refusal says; a proxy's may not be a problem document.
 * @param {Response} response @returns {Promise<Problem>}
 */
async function problemOf(response) {
  const body = await response.json().catch(() => null);
  const code = typeof body?.type === 'string' ? body.type : `http-${response.status}`;
  const detail = body?.detail || body?.title || `The server answered ${response.status}.`;
  const retryAfterS = Number(response.headers.get('Retry-After')) || 0;
  return new Problem(code, String(detail), { status: response.status, retryAfterMs: retryAfterS * 1000 });
}
