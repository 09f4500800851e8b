/** Lists of names and values, such as metrics. */

/** @import {Operation, Progress} from '../client/types.js' */

import { arrange, el, mark, say } from './dom.js';
import { number, timeText, tookText } from './format.js';
import { plain } from './plain.js';
import { askedText } from './worker.js';

const LONGEST_TEXT = 20_000; // a huge result must not slow the page down

export class Facts {
  /** @type {Map<string, HTMLElement>} */
  #values = new Map();

  /** @param {string} id */
  constructor(id) {
    this.element = el('dl', { id, class: 'facts-list' });
  }

  /** @param {[string, string][]} facts facts without a value are left out */
  show(facts) {
    const given = new Map(facts.filter(([, value]) => value !== ''));
    for (const [name, value] of this.#values) if (!given.has(name)) this.#remove(name, value);
    for (const [name, text] of given) {
      const value = this.#values.get(name) ?? this.#add(name);
      say(value, text);
    }
    arrange(this.element, [...given.keys()].map((name) => /** @type {Element} */ (this.#values.get(name)?.parentElement)));
    this.element.hidden = given.size === 0;
  }

  /** @param {string} name */
  #add(name) {
    const value = el('dd', { dir: 'auto' });
    mark(value, 'data-fact', name.toLowerCase());
    this.element.append(el('div', {}, el('dt', { dir: 'auto' }, plain(name)), value));
    this.#values.set(name, value);
    return value;
  }

  /** @param {string} name @param {HTMLElement} value */
  #remove(name, value) {
    value.parentElement?.remove();
    this.#values.delete(name);
  }
}

/** @param {Operation} operation @returns {[string, string][]} */
export function factsOf(operation) {
  return [
    ['Id', operation.id],
    ['Kind', operation.kind],
    ['Owner', operation.owner ?? ''],
    ['Tags', (operation.tags ?? []).join(', ')],
    ['Parent', operation.parent ?? ''],
    ['Worker', operation.worker ?? ''],
    ['Attempt', operation.attempt > 1 ? String(operation.attempt) : ''],
    ['Created', timeText(operation.created_at)],
    ['Started', timeText(operation.started_at)],
    ['Finished', timeText(operation.finished_at)],
    ['Cancel requested', operation.done ? askedText(operation.cancel) : ''],
    ['Took', operation.done ? tookText(operation) : ''],
    ['Events', number(operation.events)],
  ];
}

/** @param {Progress|null} progress @returns {[string, string][]} */
export function metricsOf(progress) {
  return Object.entries(progress?.metrics ?? {}).map(([name, value]) => [
    name,
    typeof value === 'number' ? number(value, 3) : typeof value === 'string' ? value : jsonText(value),
  ]);
}

/** @param {Operation} operation @returns {[string, string][]} */
export function metadataOf({ metadata = {} }) {
  return Object.entries(metadata).map(([name, value]) => [name, typeof value === 'string' ? value : jsonText(value)]);
}

/** Return the type and message of an error, its traceback, its causes and its other members. @param {Operation['error']} error */
export function errorText(error) {
  if (!error) return '';
  const { type, message, traceback, cause, ...more } = error;
  const parts = [[type, message].filter(Boolean).join(': ')];
  if (typeof traceback === 'string') parts.push(traceback);
  else if (traceback !== undefined) Object.assign(more, { traceback });
  if (Object.keys(more).length > 0) parts.push(jsonText(more));
  if (cause) parts.push(`Caused by ${typeof cause === 'object' ? errorText(cause) : jsonText(cause)}`);
  return parts.join('\n').trim();
}

/** @param {unknown} value */
export function jsonText(value) {
  const text = JSON.stringify(value, null, 2) ?? '';
  return text.length > LONGEST_TEXT ? `${text.slice(0, LONGEST_TEXT)}\n… (${text.length} characters)` : text;
}
