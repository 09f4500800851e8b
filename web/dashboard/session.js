/** Who looks: signing in where the server asks for it, and out again. */

/** @import {Operations, Problem} from '../client/operations.js' */
/** @import {Health} from './listing.js' */

import { byId, say } from './dom.js';

export class Session {
  #operations;
  #reload;
  #asked = false;

  /** @param {Operations} operations @param {() => void} [reload] begins anew, as somebody else */
  constructor(operations, reload = () => location.reload()) {
    this.#operations = operations;
    this.#reload = reload;
    byId('sign-in').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#enter();
    });
    byId('sign-out').addEventListener('click', () => this.#leave());
  }

  /** @param {Health} health */
  show({ state, code }) {
    byId('sign-in').hidden = code !== 'unauthenticated';
    if (state === 'live' && !this.#asked) this.#ask();
  }

  async #ask() {
    this.#asked = true;
    const principal = await this.#operations.session().then((it) => it.principal, () => '');
    say(byId('principal'), principal);
    byId('sign-out').hidden = principal === '';
  }

  async #enter() {
    const field = /** @type {HTMLInputElement} */ (byId('token'));
    try {
      await this.#operations.signIn(field.value.trim());
      this.#reload();
    } catch (error) {
      const { code, detail } = /** @type {Problem} */ (error);
      say(byId('sign-in-problem'), code === 'unauthenticated' ? 'The server does not take this token.' : detail);
      field.select();
    }
  }

  async #leave() {
    try {
      await this.#operations.signOut();
      this.#reload();
    } catch (problem) {
      say(byId('principal'), `still signed in: ${/** @type {Problem} */ (problem).detail}`);
    }
  }
}
