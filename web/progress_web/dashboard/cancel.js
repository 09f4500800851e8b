/** The button that asks a worker to stop, and the text of its confirmation dialog. */

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

/** The texts of the dialog that confirms a cancel. @param {Entry} entry */
export function cancelQuestion({ operation }) {
  const { children } = operation;
  const running = children ? children.total - children.done : 0;
  const family = running === 0 ? '' : running === 1 ? ' and the worker of its child' : ` and the workers of its ${number(running)} children`;
  return { what: titleOf(operation), text: `This asks its worker${family} to stop.` };
}
