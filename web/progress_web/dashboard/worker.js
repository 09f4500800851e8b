/** What there is to say of an operation's worker: that it is silent, was asked to stop, or ignores that. */

/** @import {Cancel, Operation} from '../client/types.js' */

import { timeText } from './format.js';

/** Whether a worker still works though it had the time to stop. @param {Operation} operation @param {number} now */
export function ignoresCancel(operation, now) {
  const left = timeToStop(operation, now);
  return left !== null && left <= 0;
}

/**
 * How long a worker that was asked to stop may still take, in milliseconds; null if it was not, or has ended.
 * @param {Operation} operation @param {number} now milliseconds since 1970
 */
export function timeToStop({ status, cancel }, now) {
  return status === 'cancelling' && cancel ? Date.parse(cancel.overdue_at) - now : null;
}

/**
 * Nothing, while all is well.
 * @param {Operation} operation @param {number} now milliseconds since 1970
 */
export function workerText(operation, now) {
  const { status, cancel, updated_at: at } = operation;
  if (status === 'stalled') return `No sign of its worker since ${timeText(at, now)}.`;
  if (status !== 'cancelling' || !cancel) return '';
  const asked = `Asked to stop ${askedText(cancel, now)}`;
  return ignoresCancel(operation, now) ? `${asked}. Ignored by its worker since ${timeText(cancel.overdue_at, now)}.` : asked;
}

/** "at 12:03:04 by ann@desk-3: too slow". @param {Cancel|null} cancel @param {number} [now] */
export function askedText(cancel, now = Date.now()) {
  if (!cancel) return '';
  const asked = ['at', timeText(cancel.requested_at, now), ...(cancel.by ? ['by', cancel.by] : [])].join(' ');
  return cancel.reason ? `${asked}: ${cancel.reason}` : asked;
}

/** @param {Operation} operation */
export function attemptText({ attempt }) {
  return attempt > 1 ? `attempt ${attempt}` : '';
}

/**
 * What should be said aloud as an operation comes to stand so, if anything.
 * @param {string} before a status, or `ignored` @param {string} after
 */
export function newsText(before, after) {
  if (before === after) return '';
  if (['succeeded', 'failed', 'cancelled'].includes(after)) return after;
  if (after === 'stalled') return 'stalled, no sign of its worker';
  if (after === 'ignored') return 'its worker ignores that it was asked to stop';
  return before === 'stalled' && after === 'running' ? 'running again' : '';
}
