/** An operation's children: a summary, and a bar for each child. */

/** @import {Child, ChildrenSummary, Operation} from '../client/types.js' */
/** @import {Part} from './parts.js' */

import { el, say } from './dom.js';
import { number, percentOf, reached, statusPercentText } from './format.js';
import { Parts } from './parts.js';
import { plain } from './plain.js';
import { addressOf } from './row.js';

export class Children {
  #title = el('h3');
  #parts = new Parts('children', 'Children', 'a');
  element = el('div', { id: 'detail-children', class: 'children-box', hidden: '' }, this.#title, this.#parts.element);

  /** @param {Operation} operation @param {Child[]} children the children that are listed */
  show({ children: summary }, children) {
    this.element.hidden = !summary;
    say(this.#title, summary && `Children: ${summaryText(summary)}`);
    this.#parts.show(summary ? children.map(partOf) : []);
  }
}

/** @param {ChildrenSummary} summary */
export function summaryText({ total, done, failed, cancelled, running }) {
  const counts = Object.entries({ running, failed, cancelled }).filter(([, count]) => count > 0);
  return [`${number(done)} of ${number(total)} done`, ...counts.map(([name, count]) => `${number(count)} ${name}`)].join(', ');
}

/** Convert an operation, as a call returns it, to a child as streams send it. @param {Operation} child @returns {Child} */
export function briefly({ id, kind, title, status, progress, weight }) {
  const message = typeof progress?.message === 'string' ? progress.message : undefined;
  return { id, kind, title, status, percent: percentOf(progress), weight, message };
}

/** @param {Child} child @returns {Part} */
function partOf({ id, title, status, percent, message }) {
  const facts = [status === 'running' ? '' : status, message ?? '', status === 'succeeded' ? '' : statusPercentText(status, percent)];
  return { name: plain(title ?? '').trim() || id, status, percent: reached(status, percent), text: facts.filter(Boolean).join(' · '), href: addressOf(id) };
}
