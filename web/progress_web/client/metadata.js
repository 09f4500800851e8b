/** How a `metadata` event changes the metadata of an operation. */

/**
 * Return the metadata after the changes: each key replaces the one before, and null removes it.
 * @param {Record<string, unknown>} [metadata] @param {unknown} [changes] anything, from earlier releases
 * @returns {Record<string, unknown>}
 */
export function withChanges(metadata = {}, changes) {
  if (typeof changes !== 'object' || changes === null || Array.isArray(changes)) return metadata;
  return Object.fromEntries(Object.entries({ ...metadata, ...changes }).filter(([, value]) => value !== null));
}
