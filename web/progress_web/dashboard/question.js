/** The dialog that confirms a cancel. */

import { byId, say } from './dom.js';

export class Question {
  #dialog = /** @type {HTMLDialogElement} */ (byId('ask'));
  #onYes = () => {};
  #isOpen = () => false;

  constructor() {
    byId('ask-yes').addEventListener('click', ({ detail: clicks }) => {
      if (clicks > 1) return; // the second click of a double click on the button that opened the dialog
      this.#dialog.close();
      this.#onYes();
    });
    byId('ask-no').addEventListener('click', () => this.#dialog.close());
    this.#dialog.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') event.stopPropagation(); // otherwise Escape would also close the details
    });
  }

  /**
   * @param {{what: string, text: string}} words
   * @param {() => void} onYes @param {() => boolean} isOpen whether the operation can still be cancelled
   */
  ask({ what, text }, onYes, isOpen) {
    this.#onYes = onYes;
    this.#isOpen = isOpen;
    say(byId('ask-what'), what);
    say(byId('ask-text'), text);
    this.#dialog.showModal(); // the focus goes to the button that changes nothing
  }

  /** Close the dialog if the operation can no longer be cancelled. */
  update() {
    if (this.#dialog.open && !this.#isOpen()) this.#dialog.close();
  }
}
