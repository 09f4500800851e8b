/** All details of the selected operation. */

/** @import {Entry} from './entry.js' */

import { Bar, readingOf } from './bar.js';
import { CancelButton } from './cancel.js';
import { Children } from './children.js';
import { byId, el, mark, say } from './dom.js';
import { errorText, Facts, factsOf, jsonText, metadataOf, metricsOf } from './facts.js';
import { ForceButton } from './force.js';
import { countText, paceTexts, statusPercentText, titleOf } from './format.js';
import { Log } from './log.js';
import { fully, Parts, poolText, workersOf } from './parts.js';
import { attemptText, ignoresCancel, workerText } from './worker.js';

export class Detail {
  #element = byId('detail');
  #title = el('h2', { id: 'detail-title', dir: 'auto', tabindex: '-1' });
  #badge = el('span', { class: 'badge', id: 'detail-status' });
  #attempt = el('span', { class: 'attempt', id: 'detail-attempt' });
  #connection = el('span', { class: 'connection', id: 'detail-connection' });
  #worker = el('p', { class: 'worker', id: 'detail-worker', hidden: '' });
  #problem = el('p', { class: 'problem', id: 'detail-problem', role: 'alert', hidden: '' });
  #percent = el('span', { class: 'percent' });
  #message = el('span', { class: 'message', id: 'detail-message', dir: 'auto' });
  #pace = el('span', { class: 'facts', dir: 'auto' });
  #bar = new Bar();
  #stages = new Parts('stages', 'Stages');
  #children = new Children();
  #poolTitle = el('h3');
  #pool = new Parts('pool', 'Workers');
  #error = el('pre', { id: 'detail-error', class: 'outcome', dir: 'auto', tabindex: '0', 'aria-label': 'Error' });
  #result = el('pre', { id: 'detail-result', class: 'outcome', tabindex: '0', 'aria-label': 'Result' });
  #facts = new Facts('detail-facts');
  #metadata = new Facts('detail-metadata');
  #metrics = new Facts('detail-metrics');
  #log = new Log();
  #workerLine;
  #body;
  #cancel;
  #force;

  /** @param {{onClose: () => void, onCancel: () => void, onForce: () => void}} on */
  constructor({ onClose, onCancel, onForce }) {
    this.#cancel = new CancelButton(onCancel);
    this.#force = new ForceButton(onForce);
    this.#workerLine = el('div', { class: 'worker-line' }, this.#worker, this.#force.element);
    const close = el('button', { type: 'button', id: 'detail-close', class: 'close', 'aria-label': 'Close the details' }, '×');
    close.addEventListener('click', onClose);
    this.#body = el('div', { class: 'detail-body' },
      el('div', { class: 'row-bar' }, this.#bar.element, this.#percent),
      el('div', { class: 'row-facts' }, this.#message, this.#pace),
      this.#error, this.#result, this.#stages.element, this.#children.element,
      this.#poolTitle, this.#pool.element,
      this.#log.element, this.#metrics.element, this.#metadata.element, this.#facts.element,
    );
    this.#element.append(
      el('div', { class: 'detail-head' }, this.#title, close),
      el('div', { class: 'detail-state' }, this.#badge, this.#attempt, this.#connection, this.#cancel.element),
      this.#workerLine,
      this.#problem, this.#body,
    );
  }

  /** Hide the details. */
  hide() {
    this.#element.hidden = true;
    mark(this.#element, 'data-operation-id', null);
  }

  /** Show why an operation could not be loaded. @param {string} id @param {string} text */
  reject(id, text) {
    this.#open(id, id);
    const parts = [this.#badge, this.#attempt, this.#connection, this.#cancel.element, this.#workerLine, this.#body];
    for (const part of parts) part.hidden = true;
    say(this.#problem, text);
  }

  /**
   * @param {Entry} entry @param {{state: string, text: string}} connection
   * @param {number} now the server's time, in milliseconds since 1970
   */
  show(entry, connection, now) {
    const { operation, state } = entry;
    const { status, progress, done, error, result } = operation;
    const [title, reading] = [titleOf(operation), readingOf(operation)];
    this.#open(entry.id, title);
    this.#body.hidden = this.#workerLine.hidden = false;
    mark(this.#badge, 'data-status', status);
    say(this.#badge, status);
    say(this.#attempt, attemptText(operation));
    mark(this.#connection, 'data-state', connection.state);
    say(this.#connection, connection.text);
    this.#cancel.show(entry, title);
    say(this.#worker, workerText(operation, now));
    this.#force.show(entry, title, ignoresCancel(operation, now));
    say(this.#problem, entry.problem && `Cancelling failed: ${entry.problem.detail}`);
    this.#bar.show(title, reading);
    say(this.#percent, statusPercentText(status, reading.percent) || (operation.done ? '' : '–'));
    say(this.#message, String(progress?.message ?? ''));
    say(this.#pace, [countText(progress), ...paceTexts(operation)].filter(Boolean).join(' · '));
    say(this.#error, errorText(error));
    say(this.#result, result === null || result === undefined ? '' : jsonText(result));
    this.#stages.show(fully(progress?.stages, done));
    this.#children.show(operation, state.children);
    const pool = done ? null : progress?.workers;
    say(this.#poolTitle, pool ? `Workers: ${poolText(pool)}` : '');
    this.#pool.show(workersOf(pool));
    this.#facts.show(factsOf(operation));
    this.#metadata.show(metadataOf(operation));
    this.#metrics.show(metricsOf(progress));
    this.#log.show(entry);
  }

  /** Move the focus here, for keyboard users. */
  focus() {
    this.#title.focus({ preventScroll: true });
  }

  /** @param {string} id @param {string} title */
  #open(id, title) {
    this.#element.hidden = false;
    mark(this.#element, 'data-operation-id', id);
    say(this.#title, title);
  }
}
