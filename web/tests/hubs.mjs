/** Create a hub for tests, with windows that record their messages, and functions that control its environment. */

import { Hub } from '../progress_web/client/hub.js';
import { Operations } from '../progress_web/client/operations.js';
import { FakeClock, fakeEventSource } from './fakes.mjs';

const OPEN_MS = 2_000; // after this time a planned stream has been requested

export function aHub() {
  const [clock, EventSource] = [new FakeClock(), fakeEventSource()];
  const operations = new Operations({ base: 'http://broker.test/' });
  const answers = []; // responses to requests of a stream's URL
  operations.statusOf = async () => {
    const answer = answers.shift() ?? 200;
    if (answer instanceof Error) throw answer;
    return answer;
  };
  const hub = new Hub({ operations, EventSource, clock, random: () => 0 });

  /** A window, which wants something, and keeps what it is told. */
  const aWindow = () => {
    const told = [];
    const member = hub.join((message) => told.push(message));
    const want = (ids, { logOf = null, who = 'ann', at = 1, back = null } = {}) => hub.hear(member, { ids, logOf, who, at }, back);
    const events = () => told.flatMap(({ events = [] }) => events).map(({ operation, type, n }) => `${operation} ${type} ${n}`);
    const missing = () => told.flatMap(({ missing: ids = [] }) => ids);
    const gone = () => told.flatMap(({ gone: ids = [] }) => ids);
    const connection = () => told.findLast(({ connection: known }) => known).connection;
    return { told, want, events, missing, gone, connection, leave: () => hub.leave(member), clear: () => told.splice(0) };
  };

  /** Let the stream be asked for, and accept it. */
  const open = () => {
    clock.pass(OPEN_MS);
    EventSource.last.accept();
    EventSource.last.send('operations', { operations: asked() }, 'c0');
  };
  const asked = () => EventSource.last.url.searchParams.getAll('operation');
  const query = () => Object.fromEntries([...EventSource.last.url.searchParams].filter(([name]) => name !== 'operation'));
  let cursor = 0;
  const send = (operation, type, n, data = {}) =>
    EventSource.last.send(type, { operation, n, type, time: 5, data }, `c${++cursor}`);
  const flush = () => clock.pass(50);
  return { hub, clock, EventSource, answers, aWindow, open, asked, query, send, flush };
}
