/** Reads operations one by one, if neither the list nor the stream covers them. */

/** @import {Operations, Problem} from '../client/operations.js' */
/** @import {Operation} from '../client/types.js' */

const AT_ONCE = 3; // a browser has six connections to a server for all of its windows

export class Rereads {
  /** @type {Set<string>} */ #waiting = new Set();
  #reading = 0;
  #operations;
  #on;

  /**
   * @param {Operations} operations
   * @param {{onRead: (operation: Operation) => void, onGone: (id: string, problem: Problem) => void,
   *   listsChildren: (id: string) => boolean}} on `listsChildren`: for which operations to read the list of children
   */
  constructor(operations, on) {
    this.#operations = operations;
    this.#on = on;
  }

  /** @param {Iterable<string>} ids */
  ask(ids) {
    for (const id of ids) this.#waiting.add(id);
    while (this.#reading < AT_ONCE && this.#waiting.size > 0) this.#readNext();
  }

  async #readNext() {
    const [id] = this.#waiting;
    this.#waiting.delete(id);
    this.#reading++;
    try {
      this.#on.onRead(await this.#operations.get(id, { children: this.#on.listsChildren(id) }));
    } catch (error) {
      const problem = /** @type {Problem} */ (error);
      if (problem.status === 404 || problem.status === 410) this.#on.onGone(id, problem);
    }
    this.#reading--;
    this.ask([]);
  }
}
