/** Texts about the state of connections. */

/** @import {Connection} from '../client/types.js' */
/** @import {Entry} from './entry.js' */
/** @import {Health} from './listing.js' */

import { timeText } from './format.js';
import { REFRESH_MS } from './listing.js';

/** @type {Record<string, string>} */
const REASONS = {
  silent: 'no data received',
  draining: 'the server is restarting',
  unreachable: "the server can't be reached",
  timeout: 'the server does not respond',
  'at-capacity': 'the server is at capacity',
  'too-many-streams': 'too many open streams',
  'rate-limited': 'rate limit exceeded',
  'authorizer-unavailable': 'the authorization server is unavailable',
  'storage-unavailable': 'the storage is unavailable',
};

/**
 * Return the text for the state of the page.
 * @param {Health} health
 */
export function healthText({ state, since, detail }) {
  const at = timeText(since);
  switch (state) {
    case 'unreachable':
      return detail ? `the server has returned errors since ${at}: ${detail}` : `the server has been unreachable since ${at}`;
    case 'rejected':
      return `the server has rejected requests since ${at}: ${detail}`;
    case 'reconnecting':
      return 'reconnecting…';
    case 'connecting':
      return 'connecting…';
    default:
      return state;
  }
}

/**
 * Return the state of a row and its text. A row that the stream does not follow is as fresh as the list.
 * @param {Entry} entry @param {Health} health @param {boolean} listed whether the last list contained it
 * @param {{connection: Connection, followed: Set<string>}} stream
 * @returns {{state: string, text: string}}
 */
export function entryConnection({ id, operation, seenAt }, health, listed, { connection, followed }) {
  if (operation.done) return { state: 'ended', text: operation.finished_at ? `at ${timeText(operation.finished_at)}` : '' };
  if (followed.has(id) && connection.state !== 'closed') return { state: connection.state, text: streamText(connection) };
  if (health.state === 'live' && listed) return { state: 'listed', text: `refreshed every ${REFRESH_MS / 1000} s` };
  return { state: 'stale', text: `as of ${timeText(seenAt)}` };
}

/** @param {Connection} connection */
function streamText({ state, code, detail }) {
  const reason = code && (REASONS[code] ?? detail ?? code);
  switch (state) {
    case 'connecting':
      return 'connecting…';
    case 'reconnecting':
      return reason ? `reconnecting… (${reason})` : 'reconnecting…';
    case 'rejected':
      return `no live updates: ${reason}`;
    default:
      return state;
  }
}
