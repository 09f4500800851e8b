/** Decodes messages of EventSource into events. */

/** @import {Event} from './types.js' */

/** The latest time that a Date can hold, in milliseconds. Formatting a later one throws. */
export const LAST_DATE = 8.64e15;

/**
 * Decode an event. Returns null if it is invalid: invalid data must not break a page.
 * @param {string} type the event's name
 * @param {string} text its data: an envelope, `{operation, n, type, time, data}`
 * @param {string} lastEventId
 * @returns {Event|null}
 */
export function decode(type, text, lastEventId) {
  const envelope = parse(text);
  if (typeof envelope !== 'object' || envelope === null) return null;
  const data = 'data' in envelope ? envelope.data : envelope; // control frames have no envelope
  const event = {
    type,
    position: lastEventId || null,
    operation: String(envelope.operation ?? ''),
    n: Number(envelope.n ?? data?.events ?? 0),
    time: Number(envelope.time ?? 0),
    data,
    reset: envelope.reset ?? data?.reset ?? null,
  };
  return Number.isSafeInteger(event.n) && Math.abs(event.time) <= LAST_DATE ? event : null;
}

/** @param {string} text @returns {any} */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
