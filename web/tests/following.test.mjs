import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Following } from '../progress_web/client/following.js';
import { FakeClock, fakePage } from './fakes.mjs';

const wanted = (ids, changes = {}) => ({ ids, logOf: null, principal: 'ann', at: 1, ...changes });

/** A window's part, with hubs that keep what they are told, and answer when they are made to. */
function aWindow({ hidden = false } = {}) {
  const [clock, page, links, heard] = [new FakeClock(), fakePage(), [], { events: [], missing: [], gone: [], rechecks: 0 }];
  if (hidden) page.see('hidden');
  const connect = (own, tell, fail) => {
    const link = { own, tell, fail, said: [], open: true };
    links.push(link);
    return { want: (want, back) => link.said.push([want.ids, back]), leave: () => { link.open = false; } };
  };
  const following = new Following({
    connect, clock, page, random: () => 0,
    onEvents: (events) => heard.events.push(...events),
    onMissing: (ids) => heard.missing.push(...ids),
    onGone: (ids) => heard.gone.push(...ids),
    onRecheck: () => { heard.rechecks++; },
    onChange: () => {},
  });
  following.start();
  const live = () => links.at(-1).tell({ connection: { state: 'live', code: null, detail: null, since: 0 }, followed: ['a'] });
  return { following, clock, page, links, heard, live };
}

test('it says what it wants when that changes, and again and again', () => {
  const { following, clock, links, live } = aWindow();
  for (const ids of [['a'], ['a'], ['a', 'b'], ['a', 'b']]) following.want(wanted(ids));
  assert.deepEqual(links[0].said, [[[], null], [['a'], null], [['a', 'b'], null]]);
  live();
  clock.pass(5_000);
  assert.deepEqual(links[0].said.length, 4);
  following.want(wanted(['a', 'b'], { at: 2 }));
  assert.deepEqual(links[0].said.length, 5, 'who it is for was asked again');
});

test('it hands on what it is told', () => {
  const { following, links, heard, live } = aWindow();
  live();
  assert.deepEqual([following.connection.state, following.followed], ['live', new Set(['a'])]);
  links[0].tell({ events: [{ n: 1 }], missing: ['b'], gone: ['c'], recheck: true });
  assert.deepEqual(heard, { events: [{ n: 1 }], missing: ['b'], gone: ['c'], rechecks: 1 });
  assert.equal(following.connection.state, 'live');
});

test('out of sight it has no part, and says all anew when it is back', () => {
  const { following, page, links, heard, live } = aWindow();
  following.want(wanted(['a']));
  live();
  for (const [leave, come] of [
    [() => page.see('hidden'), () => page.see('visible')],
    [() => page.fire('pagehide'), () => page.fire('pageshow')], // into the back/forward cache, and out of it
  ]) {
    const before = links.at(-1);
    leave();
    assert.deepEqual([before.open, following.connection.state, following.followed.size], [false, 'closed', 0]);
    before.tell({ events: [{ n: 9 }] });
    assert.deepEqual(heard.events, [], 'what was on the way is not heard');
    come();
    assert.deepEqual(links.at(-1).said.map(([ids]) => ids), [['a']]);
    assert.notEqual(links.at(-1).said[0][1], null);
    live();
  }
});

test('a page that is opened in the background waits until it is seen', () => {
  const { page, links } = aWindow({ hidden: true });
  assert.equal(links.length, 0);
  page.see('visible');
  assert.equal(links.length, 1);
});

test('on another network, and after it was frozen, it says so', () => {
  const { page, links } = aWindow();
  page.fire('online');
  page.document.dispatchEvent(new Event('resume'));
  assert.deepEqual(links[0].said.map(([, back]) => back), [null, 'online', 'resume']);
});

test('a hub that is silent is dead, and so is one that tells of its end: another is asked', () => {
  const { following, clock, links, live } = aWindow();
  following.want(wanted(['a']));
  live();
  clock.pass(16_000);
  assert.deepEqual([links.length, links[0].open, links[1].open], [2, false, true]);
  assert.deepEqual(links[1].said.at(-1)[0], ['a']);
  live();
  links[1].fail();
  assert.equal(following.connection.state, 'closed');
  clock.pass(500);
  assert.equal(links.length, 3);
  links[1].fail(); // late
  assert.equal(links[2].open, true);
});

test('where the shared hub can not be had, a window has its own', () => {
  const { clock, links, live } = aWindow();
  for (let i = 0; i < 3; i++) {
    links.at(-1).fail();
    clock.pass(3_000);
  }
  assert.deepEqual(links.map(({ own }) => own).slice(-1), [true]);
  live();
  clock.pass(4_000);
  assert.equal(links.filter(({ open }) => open).length, 1);
});
