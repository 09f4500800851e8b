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

  /** A window, which wants something, and keeps the messages that it gets. */
  const aWindow = () => {
    const messages = [];
    const member = hub.join((message) => messages.push(message));
    const want = (ids, { logOf = null, principal = 'ann', at = 1, back = null } = {}) => hub.want(member, { ids, logOf, principal, at }, back);
    const events = () => messages.flatMap(({ events = [] }) => events).map(({ operation, type, n }) => `${operation} ${type} ${n}`);
    const missing = () => messages.flatMap(({ missing: ids = [] }) => ids);
    const gone = () => messages.flatMap(({ gone: ids = [] }) => ids);
    const connection = () => messages.findLast(({ connection: known }) => known).connection;
    return { messages, want, events, missing, gone, connection, leave: () => hub.leave(member), clear: () => messages.splice(0) };
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
