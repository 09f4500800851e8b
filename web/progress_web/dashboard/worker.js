/** Texts about the worker of an operation: no heartbeat, asked to stop, or a cancel ignored. */

/** @import {Cancel, Operation} from '../client/types.js' */

import { timeText } from './format.js';

/** Whether a worker is still running although its time to stop has passed. @param {Operation} operation @param {number} now */
export function ignoresCancel(operation, now) {
  const left = timeToStop(operation, now);
  return left !== null && left <= 0;
}

/**
 * Return how long a worker that was asked to stop may still take, in milliseconds; null if it was not asked, or has
 * ended.
 * @param {Operation} operation @param {number} now milliseconds since 1970
 */
export function timeToStop({ status, cancel }, now) {
  return status === 'cancelling' && cancel ? Date.parse(cancel.overdue_at) - now : null;
}

/**
 * Return the text about the worker; empty if there is no problem and no cancel.
 * @param {Operation} operation @param {number} now milliseconds since 1970
 */
export function workerText(operation, now) {
  const { status, cancel, updated_at: at } = operation;
  if (status === 'stalled') return `No heartbeat from its worker since ${timeText(at, now)}.`;
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
 * Return the announcement for screen readers when the status of an operation changes, if any.
 * @param {string} before a status, or `ignored` @param {string} after
 */
export function newsText(before, after) {
  if (before === after) return '';
  if (['succeeded', 'failed', 'cancelled'].includes(after)) return after;
  if (after === 'stalled') return 'stalled, no heartbeat from its worker';
  if (after === 'ignored') return 'its worker ignores the request to stop';
  return before === 'stalled' && after === 'running' ? 'running again' : '';
}
