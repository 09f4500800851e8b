/** Cleans text for display: removes terminal escapes, control characters, and overrides of text direction. */

// ECMA-48's control sequences (colours, cursor moves), command strings (titles, links) and other escapes.
const CONTROL_SEQUENCE = '(?:\\u001b\\[|\\u009b)[0-?]*[ -/]*[@-~]?';
const COMMAND_STRING = '(?:\\u001b[P\\]X^_]|[\\u0090\\u009d\\u0098\\u009e\\u009f])[^\\u0007\\u001b\\u009c]*(?:\\u0007|\\u001b\\\\|\\u009c)?';
const ESCAPE = '\\u001b[ -/]*[0-~]?';
const ESCAPES = new RegExp(`${CONTROL_SEQUENCE}|${COMMAND_STRING}|${ESCAPE}`, 'g');
// All other control characters except tabs and line ends; and Unicode's embeddings and overrides of direction.
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e]/g;

/** @param {string} text */
export function plain(text) {
  return text.replace(/\r\n?/g, '\n').replace(ESCAPES, '').replace(CONTROLS, '');
}
