/** The page: data from the server goes into the board, and the board is drawn. */

/** @import {Problem} from '../client/operations.js' */
/** @import {Wanted} from '../client/types.js' */
/** @import {Entry} from './entry.js' */

import { systemClock, Timers } from '../client/clock.js';
import { Following } from '../client/following.js';
import { Operations, SERVER } from '../client/operations.js';
import { Board } from './board.js';
import { cancelQuestion } from './cancel.js';
import { entryConnection, healthText } from './connection.js';
import { Detail } from './detail.js';
import { arrange, byId, mark, say } from './dom.js';
import { Listing } from './listing.js';
import { Question } from './question.js';
import { Rereads } from './rereads.js';
import { Row } from './row.js';
import { Session } from './session.js';
import { timeToStop } from './worker.js';

/** @type {Wanted} */
const NOTHING = { ids: [], logOf: null, principal: '', at: 0 };
const LONGEST_TIMER_MS = 2 ** 31 - 1; // a longer timer would fire at once in browsers

const operations = new Operations();
const board = new Board();
const session = new Session(operations, changed);
const question = new Question();
/** @type {Map<string, Row>} */
const rows = new Map();
const detail = new Detail({
  onClose: () => goTo(null),
  onCancel: () => cancel(board.selectedId),
  onForce: () => endByForce(board.selectedId),
});
const timers = new Timers(systemClock);
const rereads = new Rereads(operations, {
  listsChildren: (id) => id === board.selectedId,
  onRead(operation) {
    board.see(operation, Date.now());
    changed();
  },
  onGone: forget,
});
const following = new Following({
  onEvents(events) {
    for (const event of events) board.entries.get(event.operation)?.hear(event);
    changed();
  },
  onGone: (ids) => ids.forEach((id) => forget(id)),
  onMissing: (ids) => rereads.ask(ids.filter((id) => board.entries.has(id))),
  onChange: changed,
  onRecheck: () => session.check(),
});
const listing = new Listing({
  operations,
  onList(list, complete) {
    board.list(list, complete, Date.now());
    rereads.ask(board.unsure(Date.now(), listing.lookedAt, isLive));
    readSelected();
    changed();
  },
  onHealth: changed,
});
/** @type {{detail: string}|null} */
let missing = null;
let planned = false;

/** @param {string} id @param {{detail: string}} [problem] */
function forget(id, problem = { detail: 'It was deleted, or it has expired.' }) {
  board.forget(id);
  if (id === board.selectedId) missing = problem;
  changed();
}

/** Draw once before the next frame, however many changes there are until then. */
function changed() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    following.want(session.proof ? { ids: board.wanted(), logOf: wantedLog(), ...session.proof } : NOTHING);
    draw();
  });
}

/** Whether the stream is live and follows an operation. @param {string} id */
function isLive(id) {
  return following.connection.state === 'live' && following.followed.has(id);
}

/** The operation whose log lines the stream should include. */
function wantedLog() {
  const { selected } = board;
  return selected && !selected.operation.done ? selected.id : null;
}

/** Read what the list does not contain and the stream may not send: the selected operation's children and log. */
function readSelected() {
  const { selected } = board;
  if (!selected) return;
  if (!selected.tail) selected.openLog(operations, changed);
  else if (!isLive(selected.id)) selected.tail.catchUp(selected.operation);
  if (selected.operation.children) rereads.ask([selected.id]);
}

function draw() {
  const [shown, now] = [board.shown(), operations.now()];
  for (const id of rows.keys()) if (!board.entries.has(id)) rows.delete(id);
  arrange(byId('operations'), shown.map((entry) => {
    const row = rows.get(entry.id) ?? newRow(entry.id);
    rows.set(entry.id, row);
    row.show(entry, entry.id === board.selectedId, connectionOf(entry), now);
    return row.element;
  }));
  drawDetail(now);
  drawPage(shown.length);
  question.update();
  const news = board.news(now);
  if (news.length > 0) byId('announcements').textContent = news.join('. ');
  drawAgain(now);
}

/** @param {Entry} entry */
function connectionOf(entry) {
  return entryConnection(entry, listing.health, board.isListed(entry.id), following);
}

/** Draw again when the next worker exceeds its time to stop. @param {number} now */
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
  else if (selected) detail.show(selected, connectionOf(selected), now);
  else detail.reject(selectedId, missing ? missing.detail : 'loading…');
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
  say(byId('empty-title'), none ? 'No operations yet' : `No ${board.filter} operations`);
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

/** The selected operation is part of the address, so that the back button and links work. */
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
  board.selected?.closeLog();
  board.selectedId = id;
  missing = null;
  if (id !== null && !board.entries.has(id)) find(id);
  readSelected();
  changed();
  requestAnimationFrame(() => {
    if (id !== null) detail.focus();
    else if (before !== null) /** @type {HTMLElement|null} */ (rows.get(before)?.element.querySelector('a'))?.focus();
  });
}

/** Get an operation that the list does not contain. @param {string} id */
async function find(id) {
  try {
    board.see(await operations.get(id, { children: true }), Date.now());
    readSelected();
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
following.start();
session.check();
changed();
