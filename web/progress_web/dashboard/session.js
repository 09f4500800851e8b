/** The user's session: signing in if the server requires it, and signing out. */

/** @import {Operations, Problem} from '../client/operations.js' */
/** @import {Health} from './listing.js' */

import { byId, say } from './dom.js';

const AGAIN_MS = 2000; // retry delay if the page could not load how to sign in

export class Session {
  /** The principal that the server last reported, and when it was asked; null while nobody is signed in. @type {{principal: string, at: number}|null} */ proof = null;
  /** The principal for whom the page has shown data. @type {string|null} */ #shownTo = null;
  #operations;
  #reload;
  #onChange;
  #asking = false;
  #signedOut = false;
  #led = false;

  /**
   * @param {Operations} operations @param {() => void} onChange called when `proof` changes
   * @param {() => void} [reload] starts again, as another user
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
    addEventListener('focus', () => this.check()); // the user may have signed in in another window
  }

  /** @param {Health} health */
  show({ state, code }) {
    const before = this.#signedOut;
    this.#signedOut = code === 'unauthenticated' || (before && state !== 'live');
    if (!this.#signedOut) this.#led = false;
    else if (!this.#led) this.#lead();
    byId('sign-in').hidden = !this.#signedOut;
    if (this.#signedOut) this.proof = null; // the next user may be another one
    else if (before) this.check();
  }

  /** Ask the server who the user is. If it is another user than before, reload, so that no data of the other stays. */
  async check() {
    if (this.#asking || this.#signedOut) return;
    this.#asking = true;
    const at = Date.now();
    try {
      const { principal, kept } = await this.#operations.session();
      if (this.#shownTo !== null && this.#shownTo !== principal) return this.#reload();
      this.#shownTo = principal;
      this.proof = { principal, at };
      say(byId('principal'), principal);
      byId('sign-out').hidden = !kept; // without a session cookie the user has to sign out where they signed in
    } catch {
      this.proof = null;
      setTimeout(() => this.proof ?? this.check(), AGAIN_MS);
    } finally {
      this.#asking = false;
    }
    this.#onChange();
  }

  /** Show how to sign in. Until that is known, ask for a token, because most servers accept tokens. */
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
      say(byId('sign-in-problem'), code === 'unauthenticated' ? 'The server does not accept this token.' : detail);
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
