/** The question that comes before an operation is cancelled. */

import { byId, say } from './dom.js';

export class Question {
  #dialog = /** @type {HTMLDialogElement} */ (byId('ask'));
  #onYes = () => {};
  #isOpen = () => false;

  constructor() {
    byId('ask-yes').addEventListener('click', ({ detail: clicks }) => {
      if (clicks > 1) return; // the second half of a double click on what opened it
      this.#dialog.close();
      this.#onYes();
    });
    byId('ask-no').addEventListener('click', () => this.#dialog.close());
    this.#dialog.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') event.stopPropagation(); // which would close the details, too
    });
  }

  /**
   * @param {{what: string, text: string}} words
   * @param {() => void} onYes @param {() => boolean} isOpen whether there still is something to decide
   */
  ask({ what, text }, onYes, isOpen) {
    this.#onYes = onYes;
    this.#isOpen = isOpen;
    say(byId('ask-what'), what);
    say(byId('ask-text'), text);
    this.#dialog.showModal(); // the focus goes to what changes nothing
  }

  /** Take the question back if there is nothing to decide any more. */
  update() {
    if (this.#dialog.open && !this.#isOpen()) this.#dialog.close();
  }
}
