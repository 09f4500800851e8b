/** The button that ends an operation whose worker ignores a cancel. It asks for confirmation first. */

/** @import {Entry} from './entry.js' */

import { el, mark } from './dom.js';

export class ForceButton {
  #button = el('button', { type: 'button', 'data-action': 'force' });
  #sure = el('button', { type: 'button', class: 'sure', 'data-action': 'force-sure' }, 'End it');
  #keep = el('button', { type: 'button', 'data-action': 'force-not' }, 'Keep waiting');
  #question = el('span', { class: 'question', role: 'group', hidden: '' }, this.#sure, this.#keep);
  /** @type {string|null} */ #of = null;
  element = el('span', { class: 'force', hidden: '' }, this.#button, this.#question);

  /** @param {() => void} onForce */
  constructor(onForce) {
    this.#button.addEventListener('click', () => this.#ask(true));
    this.#keep.addEventListener('click', () => this.#ask(false));
    this.#sure.addEventListener('click', () => {
      this.#ask(false);
      onForce();
    });
    this.#question.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape') return;
      event.stopPropagation(); // otherwise Escape would also close the details
      this.#ask(false);
    });
  }

  /** @param {Entry} entry @param {string} title @param {boolean} offered */
  show(entry, title, offered) {
    this.element.hidden = !offered;
    if (!offered || entry.id !== this.#of) this.#close();
    this.#of = entry.id;
    const text = entry.asking ? 'Ending…' : 'End by force';
    if (this.#button.textContent !== text) this.#button.textContent = text;
    mark(this.#button, 'aria-label', `${text} ${title}`);
    mark(this.#question, 'aria-label', `End ${title} now, although its worker is still running?`);
    if (this.#button.disabled !== entry.asking) this.#button.disabled = entry.asking;
  }

  /**
   * Show or hide the confirmation. The focus goes to "Keep waiting", which also appears under the pointer. So an
   * accidental second click does not end the operation.
   * @param {boolean} open
   */
  #ask(open) {
    this.#question.hidden = !open;
    this.#button.hidden = open;
    (open ? this.#keep : this.#button).focus();
  }

  #close() {
    this.#question.hidden = true;
    this.#button.hidden = false;
  }
}
