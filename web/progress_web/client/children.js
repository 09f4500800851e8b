/** What an operation's children say of it. Pure, and nothing is ever changed in place. */

/** @import {Child, Operation, Progress} from './types.js' */

/** Children kept that events told of; a `children` frame tells as many as there are to list. */
export const MOST_CHILDREN = 100;

/**
 * The children, with one that was just created as it was then; the same list if it is known.
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
 * Where an operation's worker tells no percentage, its children's stands there, as in a snapshot.
 * @param {Operation} operation @returns {Operation}
 */
export function rolledUp(operation) {
  const { children, progress, status } = operation;
  if (tellsPercent(progress) && !progress?.rolled_up) return operation;
  if (!children) return progress?.rolled_up ? { ...operation, progress: { ...progress, percent: null, rolled_up: false } } : operation;
  const percent = status === 'succeeded' ? 100 : children.percent;
  return { ...operation, progress: { ...progress, percent, rolled_up: true } };
}

/** @param {Progress|null} progress */
function tellsPercent(progress) {
  const { percent, current, total } = progress ?? {};
  return typeof percent === 'number' || (typeof current === 'number' && typeof total === 'number' && total > 0);
}
