/** The API calls of a page, such as list, get and cancel, and the URLs of streams. */

/** @import {Clock} from './clock.js' */
/** @import {History, Operation} from './types.js' */

import { systemClock } from './clock.js';

/** The URL of the server. It is derived from this file, which is served as `<server>/web/client/operations.js`. */
export const SERVER = new URL('../../', import.meta.url).href;

const TIMEOUT_MS = 10_000;
const LASTING = new Set([401, 403, 404, 410, 422]);
const DATE_MS = 5_000; // the `Date` header has whole seconds and can arrive late; ignore smaller differences

/** A call that failed: the server rejected it, or did not respond. */
export class Problem extends Error {
  /**
   * @param {string} code the `type` of the problem; `unreachable` or `timeout` if there was no response
   * @param {string} detail what happened, as text for people
   * @param {{status?: number, retryAfterMs?: number}} [more] `status` is 0 if there was no response
   */
  constructor(code, detail, { status = 0, retryAfterMs = 0 } = {}) {
    super(detail);
    this.name = 'Problem';
    this.code = code;
    this.detail = detail;
    this.status = status;
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether the error is permanent, so that retrying does not help. */
  get lasting() {
    return LASTING.has(this.status);
  }
}

/** The API of a server. */
export class Operations {
  #base;
  #fetch;
  #clock;
  #token;
  #aheadMs = 0;

  /**
   * Without a `token` the browser authenticates by its session cookie, if it has one.
   * @param {object} [options]
   * @param {string} [options.base] @param {typeof globalThis.fetch} [options.fetch] @param {Clock} [options.clock]
   * @param {(() => string|Promise<string>)|null} [options.token] returns a valid token; it is called for each request
   */
  constructor({ base = SERVER, fetch = (...call) => globalThis.fetch(...call), clock = systemClock, token = null } = {}) {
    this.#base = base;
    this.#fetch = fetch;
    this.#clock = clock;
    this.#token = token;
  }

  /** Whether a stream needs a ticket. It does with a token, because an EventSource can't send headers. */
  get needsTickets() {
    return this.#token !== null;
  }

  /** The server's time in milliseconds since 1970. The clock of the page may be wrong by minutes. */
  now() {
    return this.#clock.now() + this.#aheadMs;
  }

  /**
   * @param {Record<string, string|number>} [query] `limit`, `cursor`, `status`, …
   * @param {AbortSignal} [signal]
   * @returns {Promise<{operations: Operation[], next_cursor: string|null}>} most recently changed first;
   *   a page may be short or empty, and is the last one only if `next_cursor` is null
   */
  list(query = {}, signal) {
    const search = new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)]));
    return this.#call(`v1/operations?${search}`, { signal });
  }

  /** @param {string} id @param {{children?: boolean}} [include] `children` also lists its children @returns {Promise<Operation>} */
  get(id, { children = false } = {}) {
    return this.#call(`v1/operations/${encodeURIComponent(id)}${children ? '?include=children' : ''}`);
  }

  /**
   * Get a page of an operation's events, oldest first.
   * @param {string} id
   * @param {{after?: string|null, types?: string[]}} [from] `after` is the `position` of the previous page
   * @returns {Promise<History>}
   */
  history(id, { after = null, types = [] } = {}) {
    const search = new URLSearchParams({ limit: '1000' });
    if (after) search.set('after', after);
    if (types.length > 0) search.set('types', types.join(','));
    return this.#call(`v1/operations/${encodeURIComponent(id)}/events?${search}`);
  }

  /**
   * Ask the worker to stop. With `force`, end the operation now, even if its worker does not stop.
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
   * Get a ticket for one connection to an operation's stream. It expires after a minute.
   * @param {string} id @returns {Promise<string>}
   */
  async ticket(id) {
    const { ticket } = await this.#call(`v1/operations/${encodeURIComponent(id)}/tickets`, { method: 'POST' });
    return ticket;
  }

  /**
   * Get how users sign in, and the URL of the sign-in page if there is one. This call needs no credentials.
   * @returns {Promise<{by: 'nobody'|'token'|'back-end', url: string|null}>}
   */
  waysToSignIn() {
    return this.#call('web/sign-in.json');
  }

  /**
   * Get the identity of the caller. `principal` is empty without authentication. `kept` is true with a session cookie.
   * @returns {Promise<{principal: string, kept: boolean}>}
   */
  session() {
    return this.#call('v1/session');
  }

  /** Store a token in a session cookie, which scripts can't read. @param {string} token @returns {Promise<void>} */
  signIn(token) {
    return this.#call('v1/session', { method: 'POST', headers: { Authorization: `Bearer ${token}` } });
  }

  /** Remove the session cookie. @returns {Promise<void>} */
  signOut() {
    return this.#call('v1/session', { method: 'DELETE' });
  }

  /**
   * Return the URL of an operation's events, for EventSource. Pings are sent as events, so that a dead connection is
   * noticed.
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
   * Return the URL of a stream of many operations, for EventSource.
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
   * Request the status of a stream's URL, because EventSource does not reveal why it gave up. Rejects with a `Problem`.
   * @param {string} url @returns {Promise<number>} the status: 200, or 204 if no more events will come
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
   * @param {(response: Response) => any} [read] reads the result of a successful response
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
      if (timeout.aborted) throw new Problem('timeout', `The server did not respond within ${TIMEOUT_MS / 1000} s.`);
      throw new Problem('unreachable', "The server can't be reached.");
    }
  }
}

/**
 * Convert an error response to a `Problem`. The response may come from a proxy and not be a problem document.
 * @param {Response} response @returns {Promise<Problem>}
 */
async function problemOf(response) {
  const body = await response.json().catch(() => null);
  const code = typeof body?.type === 'string' ? body.type : `http-${response.status}`;
  const detail = body?.detail || body?.title || `The server responded with status ${response.status}.`;
  const retryAfterS = Number(response.headers.get('Retry-After')) || 0;
  return new Problem(code, String(detail), { status: response.status, retryAfterMs: retryAfterS * 1000 });
}
