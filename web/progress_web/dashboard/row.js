/** One operation in the list. */

/** @import {Entry} from './entry.js' */

import { Bar, readingOf } from './bar.js';
import { CancelButton } from './cancel.js';
import { el, mark, say } from './dom.js';
import { ForceButton } from './force.js';
import { countText, paceTexts, statusPercentText, titleOf } from './format.js';
import { briefly, Parts } from './parts.js';
import { attemptText, ignoresCancel, workerText } from './worker.js';

/** The address of an operation on this page. @param {string} id */
export function addressOf(id) {
  return `#operation=${encodeURIComponent(id)}`;
}

export class Row {
  #title;
  #badge = el('span', { class: 'badge' });
  #attempt = el('span', { class: 'attempt' });
  #connection = el('span', { class: 'connection' });
  #percent = el('span', { class: 'percent' });
  #message = el('span', { class: 'message', dir: 'auto' });
  #facts = el('span', { class: 'facts', dir: 'auto' });
  #problem = el('p', { class: 'problem', role: 'alert', hidden: '' });
  #worker = el('p', { class: 'worker', hidden: '' });
  #bar = new Bar();
  #stages = new Parts('stages', 'Stages');
  #cancel;
  #force;

  /** @param {string} id @param {{onCancel: () => void, onForce: () => void}} on */
  constructor(id, { onCancel, onForce }) {
    this.#title = el('a', { class: 'title', dir: 'auto', href: addressOf(id) });
    this.#cancel = new CancelButton(onCancel);
    this.#force = new ForceButton(onForce);
    this.element = el('li', { class: 'row', 'data-operation-id': id },
      el('div', { class: 'row-head' }, this.#title, this.#badge, this.#attempt, this.#connection, this.#cancel.element),
      el('div', { class: 'row-bar' }, this.#bar.element, this.#percent),
      el('div', { class: 'row-facts' }, this.#message, this.#facts),
      this.#stages.element,
      el('div', { class: 'worker-line' }, this.#worker, this.#force.element),
      this.#problem,
    );
  }

  /**
   * @param {Entry} entry @param {boolean} selected @param {{state: string, text: string}} connection
   * @param {number} now the server's time, in milliseconds since 1970
   */
  show(entry, selected, connection, now) {
    const { operation } = entry;
    const { status, progress } = operation;
    const title = titleOf(operation);
    const reading = readingOf(operation);
    mark(this.element, 'data-status', status);
    mark(this.element, 'data-connection', connection.state);
    mark(this.#connection, 'data-state', connection.state);
    mark(this.#title, 'aria-current', selected ? 'true' : null);
    say(this.#title, title);
    mark(this.#badge, 'data-status', status);
    say(this.#badge, status);
    say(this.#attempt, attemptText(operation));
    say(this.#connection, connection.text);
    this.#bar.show(title, reading);
    say(this.#percent, statusPercentText(status, reading.percent) || (operation.done ? '' : '–'));
    say(this.#message, messageOf(entry));
    say(this.#facts, [countText(progress), ...paceTexts(operation)].filter(Boolean).join(' · '));
    this.#stages.show(operation.done ? [] : briefly(progress?.stages));
    this.#cancel.show(entry, title);
    say(this.#worker, workerText(operation, now));
    this.#force.show(entry, title, ignoresCancel(operation, now));
    say(this.#problem, entry.problem && `Cancelling failed: ${entry.problem.detail}`);
  }
}

/** The error message, or else the progress message. @param {Entry} entry */
function messageOf({ operation }) {
  if (operation.error) return String(operation.error.message || operation.error.type || '');
  return String(operation.progress?.message ?? '');
}
