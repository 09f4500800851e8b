/** Folds the events of one operation into a state. Pure: no clock, no network, and nothing is changed in place. */

/** @import {Event, LogLine, Operation, OperationState} from './types.js' */

import { rolledUp, withChild } from './children.js';
import { withChanges } from './metadata.js';
import { iso, statusChanges, unseen } from './status.js';

/** Maximum log lines kept. Older ones are dropped. */
export const LOG_LINES = 200;

/**
 * Return the state before the first event.
 * @param {Operation|null} [known] the operation as known from elsewhere; every event is still applied
 * @returns {OperationState}
 */
export function begin(known = null) {
  const operation = known && { ...known, events: 0 };
  return { operation, n: 0, position: null, ended: false, children: [], log: [], logged: 0, logN: 0 };
}

/**
 * Return the state after an event. It is the same object if the event contains nothing new.
 * @param {OperationState} state
 * @param {Event} event
 * @returns {OperationState}
 */
export function fold(state, event) {
  switch (event.type) {
    case 'ping':
    case 'bookmark':
    case 'reconnect':
      return state; // about the connection, not the operation
    case 'snapshot':
      return foldSnapshot(state, event);
    case 'log':
      return foldLog(state, event);
    case 'end':
      return foldEnd(state, event);
    case 'progress':
      return advance(state, event, { progress: event.data });
    case 'metadata':
      return advance(state, event, { metadata: withChanges(state.operation?.metadata, event.data) });
    case 'status':
      return advance(state, event, statusChanges(state.operation, event));
    case 'child':
      return foldChild(state, event);
    case 'children':
      return foldChildren(state, event);
    default:
      return advance(state, event, {});
  }
}

/**
 * Return the newer of two versions of an operation; the first, if they are equally new.
 * @template {Operation|null|undefined} A
 * @template {Operation|null|undefined} B
 * @param {A} a
 * @param {B} b
 * @returns {A|B}
 */
export function newer(a, b) {
  if (!a || !b) return a || b;
  if (a.created_at !== b.created_at) return a.created_at > b.created_at ? a : b; // deleted and created again
  return a.events >= b.events ? a : b;
}

/** @param {OperationState} state @param {Event} event @returns {OperationState} */
function foldSnapshot(state, event) {
  /** @type {Operation} */
  const operation = event.data;
  const known = state.operation;
  const sameOne = known === null || known.created_at === operation.created_at;
  if (!event.reset && sameOne && operation.events <= state.n) return state;
  const next = {
    ...state,
    operation,
    n: operation.events,
    position: event.position, // null if its `end` is still to come: resuming must not skip it
    ended: state.ended && sameOne,
    children: sameOne ? state.children : [],
    logN: Math.min(state.logN, event.n), // after a loss of data, other events follow with these numbers
  };
  if (!event.reset) return next;
  return addLine(next, { n: event.n, time: event.time, level: 'gap', message: event.reset, stage: null });
}

/**
 * Snapshots do not contain log lines, so a line older than the snapshot is still new.
 * @param {OperationState} state @param {Event} event @returns {OperationState}
 */
function foldLog(state, event) {
  if (event.n <= state.logN) return state;
  const { level = 'info', message = '', stage = null } = event.data ?? {};
  const line = { n: event.n, time: event.time, level: String(level), message: String(message), stage };
  return { ...addLine(advance(state, event, {}), line), logN: event.n };
}

/** @param {OperationState} state @param {LogLine} line @returns {OperationState} */
function addLine(state, line) {
  return { ...state, log: [...state.log, line].slice(-LOG_LINES), logged: state.logged + 1 };
}

/**
 * The snapshot of a finished operation is followed by its `end`, which has the same `n`. It only sets `ended`.
 * @param {OperationState} state @param {Event} event @returns {OperationState}
 */
function foldEnd(state, event) {
  const { status, result = null, error = null } = event.data ?? {};
  const next = advance(state, event, { status, done: true, result, error, finished_at: iso(event.time) });
  return next.ended ? next : { ...next, ended: true };
}

/**
 * A snapshot does not list the children, so a child older than the snapshot may still be new.
 * @param {OperationState} state @param {Event} event @returns {OperationState}
 */
function foldChild(state, event) {
  const next = advance(state, event, {});
  const children = withChild(next.children, event.data);
  return children === next.children ? next : { ...next, children };
}

/**
 * Apply the state of the children. It is not an event of the log, so `n` and `position` stay.
 * @param {OperationState} state @param {Event} event @returns {OperationState}
 */
function foldChildren(state, event) {
  const { operations: children, ...summary } = event.data;
  const operation = state.operation && rolledUp({ ...state.operation, children: summary.total > 0 ? summary : null });
  return { ...state, operation, children };
}

/** @param {OperationState} state @param {Event} event @param {Partial<Operation>} changes @returns {OperationState} */
function advance(state, event, changes) {
  if (event.n <= state.n) return state; // a repeated event
  const before = state.operation ?? unseen(event);
  const { n, position } = event;
  const operation = rolledUp({ ...before, ...changes, events: n, position, updated_at: iso(event.time) });
  operation.elapsed_ms = operation.started_at ? Math.max(0, event.time - Date.parse(operation.started_at)) : null;
  return { ...state, operation, n, position };
}
