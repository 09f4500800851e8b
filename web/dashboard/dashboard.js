/** The page: what the server tells goes into the board, and the board is drawn. */

/** @import {Problem} from '../client/operations.js' */

import { systemClock, Timers } from '../client/clock.js';
import { Operations, SERVER } from '../client/operations.js';
import { Board } from './board.js';
import { cancelQuestion } from './cancel.js';
import { entryConnection, healthText } from './connection.js';
import { Detail } from './detail.js';
import { arrange, byId, mark, say } from './dom.js';
import { Listing } from './listing.js';
import { Question } from './question.js';
import { Row } from './row.js';
import { Session } from './session.js';
import { steer } from './streams.js';
import { timeToStop } from './worker.js';

const LONGEST_TIMER_MS = 2 ** 31 - 1; // past it, a browser does not wait at all

const operations = new Operations();
const board = new Board();
const session = new Session(operations);
const question = new Question();
/** @type {Map<string, Row>} */
const rows = new Map();
const detail = new Detail({
  onClose: () => goTo(null),
  onCancel: () => cancel(board.selectedId),
  onForce: () => endByForce(board.selectedId),
});
const timers = new Timers(systemClock);
const listing = new Listing({
  operations,
  onList(list, complete) {
    board.list(list, complete, Date.now());
    changed();
  },
  onHealth: changed,
});
/** @type {Problem|null} */
let missing = null;
let planned = false;

/** Draw before the next frame, however much changes until then. */
function changed() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    steer(board.entries.values(), board.selectedId, operations, changed);
    draw();
  });
}

function draw() {
  const [shown, now] = [board.shown(), operations.now()];
  for (const id of rows.keys()) if (!board.entries.has(id)) rows.delete(id);
  arrange(byId('operations'), shown.map((entry) => {
    const row = rows.get(entry.id) ?? newRow(entry.id);
    rows.set(entry.id, row);
    row.show(entry, entry.id === board.selectedId, entryConnection(entry, listing.health, board.isListed(entry.id)), now);
    return row.element;
  }));
  drawDetail(now);
  drawPage(shown.length);
  question.update();
  const news = board.news(now);
  if (news.length > 0) byId('announcements').textContent = news.join('. ');
  drawAgain(now);
}

/** Draw when the next worker that was asked to stop should have. @param {number} now */
function drawAgain(now) {
  const left = [...board.entries.values()].map(({ operation }) => timeToStop(operation, now) ?? 0).filter((ms) => ms > 0);
  timers.clear('overdue');
  if (left.length > 0) timers.set('overdue', Math.min(...left, LONGEST_TIMER_MS), changed);
}

/** @param {string} id */
function newRow(id) {
  return new Row(id, { onCancel: () => cancel(id), onForce: () => endByForce(id) });
}

/** @param {number} now */
function drawDetail(now) {
  const { selected, selectedId } = board;
  if (selectedId === null) detail.hide();
  else if (selected) detail.show(selected, entryConnection(selected, listing.health, board.isListed(selectedId)), now);
  else detail.refuse(selectedId, missing ? missing.detail : 'loading…');
  mark(byId('main'), 'data-selected', selectedId === null ? 'no' : 'yes');
}

/** @param {number} rowCount */
function drawPage(rowCount) {
  for (const count of document.querySelectorAll('[data-count]')) {
    const filter = /** @type {'all'|'running'|'finished'} */ (count.getAttribute('data-count'));
    count.textContent = String(board.count(filter));
  }
  say(byId('connection'), healthText(listing.health));
  mark(byId('connection'), 'data-state', listing.health.state);
  session.show(listing.health);
  const none = board.entries.size === 0;
  byId('empty').hidden = rowCount > 0 || listing.health.state === 'connecting' || (none && listing.health.state !== 'live');
  byId('empty-hint').hidden = !none;
  say(byId('empty-title'), none ? 'No operations yet' : `Nothing ${board.filter} now`);
}

/** @param {string|null} id */
function cancel(id) {
  const entry = id === null ? undefined : board.entries.get(id);
  if (!entry?.cancellable) return;
  question.ask(cancelQuestion(entry), () => entry.cancel(operations, changed), () => entry.cancellable);
}

/** @param {string|null} id */
function endByForce(id) {
  if (id !== null) board.entries.get(id)?.endByForce(operations, changed);
}

/** The address tells which operation is selected, so that going back and sending links work. */
function selectedByAddress() {
  const match = /^#operation=(.+)$/.exec(location.hash);
  try {
    return match && decodeURIComponent(match[1]);
  } catch {
    return null;
  }
}

/** @param {string|null} id */
function goTo(id) {
  const before = board.selectedId;
  if (id === null && location.hash) history.pushState(null, '', location.pathname + location.search);
  if (id === before) return;
  board.selectedId = id;
  missing = null;
  if (id !== null && !board.entries.has(id)) find(id);
  changed();
  requestAnimationFrame(() => {
    if (id !== null) detail.focus();
    else if (before !== null) /** @type {HTMLElement|null} */ (rows.get(before)?.element.querySelector('a'))?.focus();
  });
}

/** Get an operation that the list does not have. @param {string} id */
async function find(id) {
  try {
    board.see(await operations.get(id), Date.now());
  } catch (problem) {
    if (board.selectedId === id) missing = /** @type {Problem} */ (problem);
  }
  changed();
}

byId('empty-command').textContent =
  `curl ${new URL('v1/operations', SERVER)} -H 'Content-Type: application/json' -d '{"kind": "demo", "title": "My first operation"}'`;
byId('filter').addEventListener('change', (event) => {
  board.filter = /** @type {any} */ (event.target).value;
  changed();
});
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') goTo(null);
});
addEventListener('hashchange', () => goTo(selectedByAddress()));
addEventListener('popstate', () => goTo(selectedByAddress()));
goTo(selectedByAddress());
listing.start();
changed();
