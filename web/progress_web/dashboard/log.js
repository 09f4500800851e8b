/** The view of the newest lines of an operation's log. */

/** @import {LogLine} from '../client/types.js' */
/** @import {Entry} from './entry.js' */

import { LOG_LINES } from '../client/fold.js';
import { el, mark, say } from './dom.js';
import { timeText } from './format.js';
import { plain } from './plain.js';

/** @type {Record<string, string>} */
const GAPS = {
  trimmed: 'older events are no longer stored',
  lost: 'events were lost here',
};

export class Log {
  #lines = el('ol', { id: 'log', class: 'log', role: 'log', 'aria-live': 'off', 'aria-label': 'Log', tabindex: '0' });
  #nothing = el('p', { class: 'quiet' });
  /** @type {unknown} */ #of = null;
  #shown = 0;

  constructor() {
    this.element = el('div', { class: 'log-box' }, el('h3', {}, 'Log'), this.#nothing, this.#lines);
  }

  /** Show an operation's log. Only new lines are added. @param {Entry} entry */
  show({ tail, state: { log, logged }, operation, logId }) {
    if (logId !== this.#of) {
      this.#of = logId;
      this.#shown = 0;
      this.#lines.replaceChildren();
    }
    const none = tail?.problem ? tail.problem.detail : !tail?.read ? 'Loading…' : operation.done ? 'No log lines.' : 'No log lines yet.';
    say(this.#nothing, log.length > 0 ? '' : none);
    mark(this.#lines, 'data-lines', log.length);
    this.#lines.hidden = log.length === 0;
    if (logged === this.#shown) return;
    const { scrollTop, scrollHeight, clientHeight } = this.#lines;
    const atEnd = scrollTop + clientHeight >= scrollHeight - 8;
    this.#lines.append(...log.slice(-Math.min(log.length, logged - this.#shown)).map(line));
    while (this.#lines.childElementCount > LOG_LINES) this.#lines.firstElementChild?.remove();
    this.#shown = logged;
    if (atEnd) this.#lines.scrollTop = this.#lines.scrollHeight; // but do not scroll if the user reads further up
  }
}

/** @param {LogLine} line */
function line({ time, level, message, stage }) {
  if (level === 'gap') return el('li', { class: 'gap', 'data-level': level }, `— ${GAPS[message] ?? message} —`);
  const head = [el('time', {}, timeText(time)), el('span', { class: 'level' }, plain(level))];
  if (stage) head.push(el('span', { class: 'stage', dir: 'auto' }, plain(String(stage))));
  return el('li', { 'data-level': level }, ...head, el('bdi', { class: 'text' }, plain(message)));
}
