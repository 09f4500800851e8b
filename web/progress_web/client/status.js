/** How a `status` event changes an operation. */

/** @import {Cancel, Event, Operation} from './types.js' */

import { LAST_DATE } from './frame.js';

/**
 * Return the changes. An event with `attempt` starts a new attempt, and clears the progress of the previous one.
 * @param {Operation|null} operation @param {Event} event @returns {Partial<Operation>}
 */
export function statusChanges(operation, event) {
  const { status, attempt, worker } = event.data ?? {};
  /** @type {Partial<Operation>} */
  const changes = { status };
  if (status === 'cancelling') {
    changes.cancel_requested = true;
    changes.cancel = operation?.cancel ?? cancelOf(event); // the first cancel counts
  }
  if (status === 'running' && !operation?.started_at) changes.started_at = iso(event.time);
  if (Number.isInteger(attempt)) Object.assign(changes, { attempt, progress: null });
  if (typeof worker === 'string') changes.worker = worker;
  return changes;
}

/** @param {Event} event @returns {Cancel} */
function cancelOf({ time, data: { reason, by, force_cancel_after_s: patience } }) {
  const overdue = time + (typeof patience === 'number' ? Math.round(1000 * patience) : 0);
  return {
    reason: typeof reason === 'string' ? reason : null,
    by: typeof by === 'string' ? by : null,
    requested_at: iso(time),
    overdue_at: iso(Math.abs(overdue) <= LAST_DATE ? overdue : time),
  };
}

/** @param {number} time */
export function iso(time) {
  return new Date(time).toISOString();
}

/** Return an operation of which only one event is known. @param {Event} event @returns {Operation} */
export function unseen(event) {
  const at = iso(event.time);
  return {
    id: event.operation, kind: 'operation', title: null, owner: null, tags: [], metadata: {}, parent: null, weight: 1,
    status: 'pending', done: false, attempt: 1, worker: null, cancel_requested: false, cancel: null,
    progress: null, children: null, result: null, error: null,
    created_at: at, started_at: null, updated_at: at, finished_at: null, elapsed_ms: null, expires_at: null,
    position: null, events: 0,
  };
}
