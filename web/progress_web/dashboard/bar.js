/** A progress bar, also readable by screen readers. */

/** @import {Operation} from '../client/types.js' */

import { el, mark } from './dom.js';
import { countText, percentOf, reached, statusPercentText } from './format.js';
import { plain } from './plain.js';

export class Bar {
  element = el('div', { class: 'bar', role: 'progressbar', 'aria-valuemin': '0', 'aria-valuemax': '100' }, el('div'));

  /**
   * @param {string} label the title of the operation or stage
   * @param {{percent: number|null, status: string, text: string}} reading `percent` is null if it is unknown
   */
  show(label, { percent, status, text }) {
    mark(this.element, 'aria-label', plain(label));
    mark(this.element, 'aria-valuenow', percent === null ? null : Math.floor(percent));
    mark(this.element, 'aria-valuetext', text);
    mark(this.element, 'data-status', status);
    mark(this.element, 'data-known', percent === null ? 'no' : 'yes');
    const done = `${percent ?? 0}%`;
    if (this.element.style.getPropertyValue('--done') !== done) this.element.style.setProperty('--done', done);
  }
}

/**
 * Return what the bar of an operation shows.
 * @param {Operation} operation
 */
export function readingOf({ status, progress }) {
  const percent = reached(status, percentOf(progress));
  const statuses = status === 'running' ? [] : [status];
  const text = [...statuses, statusPercentText(status, percent), countText(progress), String(progress?.message ?? '')].filter(Boolean).join(', ');
  return { percent, status, text: plain(text) || 'in progress' };
}
