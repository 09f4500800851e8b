/** The browser's side of the contract, and a parser from the npm registry, held to the shared vectors. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { test } from 'node:test';

import { EventSource } from 'eventsource';
import { createParser } from 'eventsource-parser';

import { begin, fold } from '../../web/progress_web/client/fold.js';
import { decode } from '../../web/progress_web/client/frame.js';
import { Operations } from '../../web/progress_web/client/operations.js';

const vectors = JSON.parse(readFileSync(new URL('vectors.json', import.meta.url), 'utf8'));
const OPERATION = 'import-42';

/** Read a stream's bytes, cut into pieces of `size`, as eventsource-parser reads them. */
function read(bytes, size) {
  const events = [];
  let id = '';
  const parser = createParser({
    onEvent: (event) => {
      id = event.id ?? id; // the parser tells an event's own id; by the standard the last one stands
      events.push({ type: event.event ?? 'message', data: event.data, id });
    },
  });
  const decoder = new TextDecoder();
  for (let at = 0; at < bytes.length; at += size) {
    parser.feed(decoder.decode(bytes.subarray(at, at + size), { stream: true }));
  }
  return events;
}

for (const { name, text, events } of vectors.streams) {
  test(`stream: ${name}`, () => {
    const bytes = new TextEncoder().encode(text);
    for (const size of [1, 2, 3, 7, bytes.length]) assert.deepEqual(read(bytes, size), events);
  });
}

/** What the server makes of an entry; test_vectors.py holds the server to the same. */
function wire({ operation, position, n }, { type, data, data_text: text }) {
  const time = Number(position.split('-')[0]);
  const head = JSON.stringify({ operation, n, type, time }).slice(0, -1);
  return `id: ${position}\nevent: ${type}\ndata: ${head},"data":${text ?? JSON.stringify(data)}}\n\n`;
}

for (const { name, entry, event } of vectors.frames) {
  test(`frame: ${name}`, () => {
    const [{ type, data, id }] = read(new TextEncoder().encode(wire(entry, event)), 5);
    const decoded = decode(type, data, id);
    assert.deepEqual(decoded, {
      type: event.type,
      position: entry.position,
      operation: entry.operation,
      n: entry.n,
      time: Number(entry.position.split('-')[0]),
      data: event.data_text ? JSON.parse(event.data_text) : event.data,
      reset: null,
    });
  });
}

/** An event of a fold as it is on the wire: its name, its data and its id. */
function told({ id, type, n, data, snapshot, reset, at, children, time: toldAt }) {
  if (children) return ['children', { operation: OPERATION, type: 'children', time: toldAt, data: children }, ''];
  if (!snapshot) return [type, { operation: OPERATION, n, type, time: Number(id.split('-')[0]), data }, id];
  const time = Number(snapshot.position.split('-')[0]);
  const envelope = { operation: OPERATION, n: at?.n ?? snapshot.events, type: 'snapshot', time, data: snapshot };
  return ['snapshot', reset ? { ...envelope, reset } : envelope, at?.id ?? (snapshot.done ? '' : snapshot.position)];
}

for (const { name, events, state } of vectors.folds) {
  test(`fold: ${name}`, () => {
    let now = begin();
    for (const event of events) {
      const [type, envelope, id] = told(event);
      now = fold(now, decode(type, JSON.stringify(envelope), id));
    }
    assert.deepEqual(now, state);
  });
}

for (const id of vectors.operation_ids.valid) {
  test(`id: ${id.slice(0, 20)} is the same in an address`, () => {
    const operations = new Operations({ base: 'http://broker.test/' });
    assert.equal(new URL(operations.streamUrl(id)).pathname, `/v1/operations/${id}/stream`);
  });
}

test('the client of the npm registry makes of a fold what the parser makes of it', async () => {
  const { events, state } = vectors.folds.find(({ name }) => name.startsWith('a run'));
  const server = createServer((request, response) => {
    if (request.headers['last-event-id']) return response.writeHead(204).end();
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write('retry: 1\n: connected\n\n');
    for (const [type, envelope, id] of events.map(told)) {
      response.write(`id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(envelope)}\n\n`);
    }
    return response.end();
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const source = new EventSource(`http://127.0.0.1:${server.address().port}/`);
  let now = begin();
  for (const type of new Set(events.map((event) => told(event)[0]))) {
    source.addEventListener(type, ({ data, lastEventId }) => {
      now = fold(now, decode(type, data, lastEventId));
    });
  }
  await new Promise((closed) => {
    source.onerror = () => source.readyState === EventSource.CLOSED && closed();
  });
  server.close();
  assert.deepEqual(now, state);
});
