/**
 * Follow a stream with the npm package `eventsource`, and print each event as a JSON object on one line.
 * The script ends when the client gives up for good, because nothing is left to wait for.
 */
import { EventSource } from 'eventsource';

const NAMES = ['snapshot', 'progress', 'log', 'status', 'end', 'reconnect', 'replaced', 'malformed', 'operations', 'missing'];
const print = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const source = new EventSource(process.argv[2]);
source.onopen = () => print({ opened: true });
source.onerror = ({ code }) => print(source.readyState === EventSource.CLOSED ? { closed: code } : { lost: true });
for (const name of NAMES) {
  source.addEventListener(name, ({ data, lastEventId }) => {
    print({ event: name, id: lastEventId, envelope: JSON.parse(data) });
  });
}
