/** The shared worker in which the hub of all windows of a browser lives. */

import { Hub } from './hub.js';

const hub = new Hub();

addEventListener('connect', (event) => {
  const [port] = /** @type {MessageEvent} */ (event).ports;
  const member = hub.join((told) => port.postMessage(told));
  port.addEventListener('message', ({ data: { wanted, back } }) => {
    if (wanted) hub.hear(member, wanted, back);
    else hub.leave(member);
  });
  port.addEventListener('close', () => hub.leave(member)); // where browsers tell of it
  port.start();
});
