/** Follow an operation with our client and the npm package `eventsource`, and print the final state. */
import { EventSource } from 'eventsource';

import { Operations } from '../../web/progress_web/client/operations.js';
import { Watch } from '../../web/progress_web/client/watch.js';

const [base, id, start] = process.argv.slice(2);
const watch = new Watch(id, {
  EventSource,
  operations: new Operations({ base }),
  fromStart: start === 'start',
  page: {},
  onChange: ({ state, connection }) => {
    const line = { connection: connection.state, code: connection.code, state };
    process.stdout.write(`${JSON.stringify(line)}\n`);
  },
});
watch.open();
