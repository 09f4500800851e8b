/** The button that asks a worker to stop. */

/** @import {Entry} from './entry.js' */

import { el, mark, say } from './dom.js';

export class CancelButton {
  element = el('button', { type: 'button', class: 'cancel', 'data-action': 'cancel' });

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
