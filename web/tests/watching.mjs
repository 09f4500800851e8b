/** Create a watch for tests, and functions that control its environment. */

import { Operations } from '../progress_web/client/operations.js';
import { Watch } from '../progress_web/client/watch.js';
import { event, FakeClock, fakeEventSource, fakePage, operation } from './fakes.mjs';

/** Open a watch in a fake browser. */
export function watching({ token = null, ticket = null, ...options } = {}) {
  const [clock, page, EventSource] = [new FakeClock(), fakePage(), fakeEventSource()];
  const answers = [];
  const operations = new Operations({ base: 'http://broker.test/', token });
  operations.get = async () => {
    const answer = answers.shift() ?? operation();
    if (answer instanceof Error) throw answer;
    return answer;
  };
  if (ticket) operations.ticket = ticket;
  const states = [];
  const onChange = ({ connection }) => {
    if (states.at(-1) !== connection.state) states.push(connection.state);
  };
  const watch = new Watch('import-42', { operations, EventSource, clock, page, random: () => 0, onChange, ...options });
  watch.open();
  return { watch, clock, page, EventSource, answers, states };
}

/** Let the server send an event. */
export function send(EventSource, type, n, data) {
  const { position, ...envelope } = event(type, n, data);
  EventSource.last.send(type, envelope, position);
}

/** Return the query of the newest connection. */
export const query = (EventSource) => Object.fromEntries(EventSource.last.url.searchParams);
