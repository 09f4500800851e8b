/** The shared worker. It runs the hub for all windows of a browser. */

import { Hub } from './hub.js';

const hub = new Hub();

addEventListener('connect', (event) => {
  const [port] = /** @type {MessageEvent} */ (event).ports;
  const member = hub.join((message) => port.postMessage(message));
  port.addEventListener('message', ({ data: { wanted, back } }) => {
    if (wanted) hub.want(member, wanted, back);
    else hub.leave(member);
  });
  port.addEventListener('close', () => hub.leave(member)); // not in all browsers
  port.start();
});
