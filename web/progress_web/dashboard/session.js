/** Who looks: signing in where the server asks for it, and out again. */

/** @import {Operations, Problem} from '../client/operations.js' */
/** @import {Health} from './listing.js' */

import { byId, say } from './dom.js';

const AGAIN_MS = 2000; // until a page that could not find out how to sign in here asks again

export class Session {
  /** Whom the server last named, and when it was asked; null while nobody is let in. @type {{who: string, at: number}|null} */ proof = null;
  /** To whom the page shows what it shows. @type {string|null} */ #shownTo = null;
  #operations;
  #reload;
  #onChange;
  #asking = false;
  #stranger = false;
  #led = false;

  /**
   * @param {Operations} operations @param {() => void} onChange `proof` is another
   * @param {() => void} [reload] begins anew, as somebody else
   */
  constructor(operations, onChange, reload = () => location.reload()) {
    this.#operations = operations;
    this.#onChange = onChange;
    this.#reload = reload;
    byId('sign-in').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#enter();
    });
    byId('sign-out').addEventListener('click', () => this.#leave());
    addEventListener('focus', () => this.check()); // who comes from another window may have signed in there
  }

  /** @param {Health} health */
  show({ state, code }) {
    const before = this.#stranger;
    this.#stranger = code === 'unauthenticated' || (before && state !== 'live');
    if (!this.#stranger) this.#led = false;
    else if (!this.#led) this.#lead();
    byId('sign-in').hidden = !this.#stranger;
    if (this.#stranger) this.proof = null; // whoever comes back may be somebody else
    else if (before) this.check();
  }

  /** Ask the server who one is; what was shown to somebody else goes. */
  async check() {
    if (this.#asking || this.#stranger) return;
    this.#asking = true;
    const at = Date.now();
    try {
      const { principal, kept } = await this.#operations.session();
      if (this.#shownTo !== null && this.#shownTo !== principal) return this.#reload();
      this.#shownTo = principal;
      this.proof = { who: principal, at };
      say(byId('principal'), principal);
      byId('sign-out').hidden = !kept; // who was let in by something else signs out where that is from
    } catch {
      this.proof = null;
      setTimeout(() => this.proof ?? this.check(), AGAIN_MS);
    } finally {
      this.#asking = false;
    }
    this.#onChange();
  }

  /** Say how to sign in here; until that can be found out, a token is what most servers take. */
  async #lead() {
    this.#led = true;
    const { by, url } = await this.#operations.waysToSignIn().catch(() => {
      setTimeout(() => byId('sign-in').hidden || this.#lead(), AGAIN_MS);
      return { by: 'token', url: null };
    });
    const elsewhere = by === 'back-end';
    byId('sign-in-by-back-end').hidden = !elsewhere;
    byId('sign-in-by-token').hidden = elsewhere;
    byId('sign-in-with-token').hidden = elsewhere && url !== null;
    byId('sign-in-there').hidden = url === null;
    if (url !== null) byId('sign-in-link').setAttribute('href', url.replaceAll('{page}', encodeURIComponent(location.href)));
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
