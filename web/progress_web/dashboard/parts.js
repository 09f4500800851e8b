/** Small bars with names: the stages, pool workers or children of an operation. */

/** @import {Pool, Stage} from '../client/types.js' */

import { Bar } from './bar.js';
import { arrange, el, mark, say } from './dom.js';
import { countText, durationText, number, percentOf, percentText, reached } from './format.js';
import { plain } from './plain.js';

/**
 * @typedef {object} Part
 * @property {string} name
 * @property {string} status
 * @property {number|null} percent
 * @property {string} text
 * @property {string} [href] the link of its name
 */

export class Parts {
  /** @type {{element: HTMLElement, name: HTMLElement, text: HTMLElement, bar: Bar}[]} */
  #items = [];
  #tag;

  /**
   * @param {string} kind `stages`, `pool` or `children`: the CSS class of the list @param {string} label
   * @param {'span'|'a'} [tag] the element for the names
   */
  constructor(kind, label, tag = 'span') {
    this.#tag = tag;
    this.element = el('ul', { class: `parts ${kind}`, 'aria-label': label });
  }

  /** @param {Part[]} parts */
  show(parts) {
    this.element.hidden = parts.length === 0;
    while (this.#items.length < parts.length) this.#items.push(item(this.#tag));
    this.#items.length = parts.length;
    arrange(this.element, this.#items.map(({ element }) => element));
    parts.forEach((part, i) => {
      const { element, name, text, bar } = this.#items[i];
      mark(element, 'data-name', part.name);
      mark(element, 'data-status', part.status);
      say(name, part.name);
      mark(name, 'href', part.href ?? null);
      say(text, part.text);
      bar.show(part.name, { ...part, text: plain([part.status, part.text].filter(Boolean).join(', ')) });
    });
  }
}

/** @param {'span'|'a'} tag */
function item(tag) {
  const [name, text] = [el(tag, { class: 'part-name', dir: 'auto' }), el('span', { class: 'part-text', dir: 'auto' })];
  const bar = new Bar();
  return { element: el('li', { class: 'part' }, name, text, bar.element), name, text, bar };
}

/**
 * @param {Stage[]|null|undefined} stages
 * @param {boolean} [done] whether the operation has ended; then no stage is running
 * @returns {Part[]}
 */
export function briefly(stages, done = false) {
  return (stages ?? []).map((stage) => {
    const reported = String(stage.status ?? 'pending');
    const status = done && reported === 'running' ? 'unfinished' : reported;
    const percent = reached(status, percentOf(stage));
    return { name: String(stage.name), status, percent, text: status === 'running' ? percentText(percent) : '' };
  });
}

/** @param {Stage[]|null|undefined} stages @param {boolean} done @returns {Part[]} */
export function fully(stages, done) {
  return briefly(stages, done).map((part, i) => {
    const stage = /** @type {Stage[]} */ (stages)[i];
    const facts = [
      part.status === 'running' ? '' : part.status,
      countText(stage),
      stage.in_flight ? `${number(stage.in_flight)} in flight` : '',
      typeof stage.duration_ms === 'number' ? durationText(stage.duration_ms) : '',
    ];
    return { ...part, text: facts.filter(Boolean).join(' · ') };
  });
}

/** @param {Pool|null|undefined} pool @returns {Part[]} */
export function workersOf(pool) {
  return (pool?.workers ?? []).map((worker) => ({
    name: `#${worker.id}`,
    status: worker.status === 'idle' ? 'pending' : 'running',
    percent: percentOf(worker),
    text: [worker.status, worker.item].filter(Boolean).join(' · '),
  }));
}

/** @param {Pool|null|undefined} pool */
export function poolText(pool) {
  if (!pool) return '';
  const { active, max, queue_depth: queued } = pool;
  const busy = typeof max === 'number' ? `${number(active ?? 0)} of ${number(max)} active` : `${number(active ?? 0)} active`;
  return typeof queued === 'number' ? `${busy}, ${number(queued)} queued` : busy;
}
