/** The button that asks a worker to stop, and the question that comes before. */

/** @import {Entry} from './entry.js' */

import { el, mark, say } from './dom.js';
import { number, titleOf } from './format.js';

export class CancelButton {
  element = el('button', { type: 'button', class: 'cancel', 'data-action': 'cancel', 'aria-haspopup': 'dialog' });

  /** @param {() => void} onCancel */
  constructor(onCancel) {
    this.element.addEventListener('click', onCancel);
  }

  /** @param {Entry} entry @param {string} title */
  show(entry, title) {
    const { operation, asking, cancellable } = entry;
    const waits = !operation.done && !asking && !cancellable;
    say(this.element, asking ? 'Asking…' : waits ? 'Cancelling…' : 'Cancel');
    mark(this.element, 'aria-label', `${this.element.textContent} ${title}`);
    if (this.element.disabled === cancellable) this.element.disabled = !cancellable;
  }
}

/** The words to ask with whether an operation is to be cancelled. @param {Entry} entry */
export function cancelQuestion({ operation }) {
  const { children } = operation;
  const left = children ? children.total - children.done : 0;
  const family = left === 0 ? '' : left === 1 ? ', and so is that of its child' : `, and so are those of its ${number(left)} children`;
  return { what: titleOf(operation), text: `Its worker is asked to stop${family}.` };
}
