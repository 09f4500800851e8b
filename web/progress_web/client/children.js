/** How events about children change an operation. Pure functions: nothing is changed in place. */

/** @import {Child, Operation, Progress} from './types.js' */

/** Maximum children kept from `child` events. A `children` frame replaces the list. */
export const MOST_CHILDREN = 100;

/**
 * Return the list with a newly created child, or the same list if the child is known.
 * @param {Child[]} children
 * @param {any} created the data of the event `child`
 * @returns {Child[]}
 */
export function withChild(children, created) {
  const { operation: id, kind = 'operation', title = null, weight = 1 } = created ?? {};
  if (typeof id !== 'string' || children.some((child) => child.id === id)) return children;
  /** @type {Child} */
  const child = { id, kind, title, status: 'pending', percent: null, weight };
  return [...children, child].slice(-MOST_CHILDREN);
}

/**
 * If the worker of an operation reports no percentage, use that of its children, as a snapshot does.
 * @param {Operation} operation @returns {Operation}
 */
export function rolledUp(operation) {
  const { children, progress, status } = operation;
  if (reportsPercent(progress) && !progress?.rolled_up) return operation;
  if (!children) return progress?.rolled_up ? { ...operation, progress: { ...progress, percent: null, rolled_up: false } } : operation;
  const percent = status === 'succeeded' ? 100 : children.percent;
  if (percent === null) return operation; // only a part of them is known now
  return { ...operation, progress: { ...progress, percent, rolled_up: true } };
}

/** @param {Progress|null} progress */
function reportsPercent(progress) {
  const { percent, current, total } = progress ?? {};
  return typeof percent === 'number' || (typeof current === 'number' && typeof total === 'number' && total > 0);
}
