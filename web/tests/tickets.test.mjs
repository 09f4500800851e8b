import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Operations, Problem } from '../progress_web/client/operations.js';
import { operation, settle } from './fakes.mjs';
import { query, send, watching } from './watching.mjs';

/** A watch whose server wants tickets: the first is `t1`, the next `t2`, …; what is in `rejections` comes before. */
function ticketed() {
  const rejections = [];
  let given = 0;
  const ticket = async () => {
    await settle();
    if (rejections.length > 0) throw rejections.shift();
    return `t${++given}`;
  };
  return { ...watching({ token: () => 'secret', ticket }), rejections };
}

test('a token is sent with each call, and asked for anew', async () => {
  const [seen, tokens] = [[], ['one', 'two']];
  const fetch = async (url, { headers, method = 'GET' }) => {
    seen.push([method, new URL(url).pathname, headers.get('Authorization')]);
    return Response.json({ ticket: 'abc' });
  };
  const operations = new Operations({ base: 'http://broker.test/', fetch, token: async () => tokens.shift() });
  assert.equal(await operations.ticket('a/b'), 'abc');
  await operations.get('a');
  assert.deepEqual(seen, [
    ['POST', '/v1/operations/a%2Fb/tickets', 'Bearer one'],
    ['GET', '/v1/operations/a', 'Bearer two'],
  ]);
});

test('without a token no header is sent, and no ticket is needed', async () => {
  let header;
  const fetch = async (_, { headers }) => {
    header = headers.get('Authorization');
    return new Response(null, { status: 204 });
  };
  const operations = new Operations({ base: 'http://broker.test/', fetch });
  await operations.signOut();
  assert.equal(header, null);
  assert.equal(operations.needsTickets, false);
});

test('a stream is opened with a ticket, and each time with a new one', async () => {
  const { watch, clock, EventSource } = ticketed();
  await settle();
  assert.equal(query(EventSource).ticket, 't1');
  EventSource.last.accept();
  send(EventSource, 'snapshot', 3, operation());
  EventSource.last.lose();
  assert.equal(EventSource.open.length, 0); // the browser would come back with the old one
  assert.equal(watch.connection.state, 'reconnecting');
  clock.pass(500);
  await settle();
  assert.deepEqual(query(EventSource), { ping: 'event', last_event_id: '3-0', ticket: 't2' });
});

test('the reason of a reconnect is kept', async () => {
  const { watch, EventSource } = ticketed();
  await settle();
  EventSource.last.accept();
  EventSource.last.send('reconnect', { reason: 'draining' });
  EventSource.last.lose();
  assert.equal(watch.connection.code, 'draining');
});

test('no ticket, no stream: a lasting rejection ends it, a passing one does not', async () => {
  const { watch, clock, EventSource, rejections } = ticketed();
  rejections.push(new Problem('storage-unavailable', 'away', { status: 503, retryAfterMs: 3000 }));
  rejections.push(new Problem('unauthenticated', 'who are you?', { status: 401 }));
  await settle();
  assert.equal(watch.connection.state, 'reconnecting');
  clock.pass(3000);
  await settle();
  assert.deepEqual([watch.connection.state, watch.connection.code], ['rejected', 'unauthenticated']);
  assert.equal(EventSource.made.length, 0);
  assert.equal(clock.waiting, 0);
});

test('closed while its ticket was on the way, it stays closed', async () => {
  const { watch, EventSource } = ticketed();
  watch.close();
  await settle();
  assert.equal(EventSource.made.length, 0);
  assert.equal(watch.connection.state, 'closed');
});
