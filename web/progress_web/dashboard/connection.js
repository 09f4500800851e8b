/** What is said about connections: only what is so. */

/** @import {Connection} from '../client/types.js' */
/** @import {Entry} from './entry.js' */
/** @import {Health} from './listing.js' */

import { timeText } from './format.js';
import { REFRESH_MS } from './listing.js';

/** @type {Record<string, string>} */
const REASONS = {
  silent: 'nothing was heard',
  draining: 'the server is restarting',
  unreachable: "the server can't be reached",
  timeout: 'the server does not answer',
  'at-capacity': 'the server is full',
  'too-many-streams': 'too many streams are open',
  'rate-limited': 'asked too often',
  'authorizer-unavailable': 'the server that decides who may look is away',
  'storage-unavailable': 'the storage is away',
};

/**
 * The page's own state.
 * @param {Health} health
 */
export function healthText({ state, since, detail }) {
  const at = timeText(since);
  switch (state) {
    case 'unreachable':
      return detail ? `the server has failed since ${at}: ${detail}` : `the server can't be reached since ${at}`;
    case 'refused':
      return `the server refuses since ${at}: ${detail}`;
    case 'reconnecting':
      return 'reconnecting…';
    case 'connecting':
      return 'connecting…';
    default:
      return state;
  }
}

/**
 * A row's state and the words for it. Rows that the stream does not tell of are as fresh as the list.
 * @param {Entry} entry @param {Health} health @param {boolean} listed whether the last list had it
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
    case 'refused':
      return `can't be followed: ${reason}`;
    default:
      return state;
  }
}
