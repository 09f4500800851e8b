/** Fakes of what a browser provides: a clock, connections and a page. */

export class FakeClock {
  #now = 1_000_000;
  #timers = new Map();
  #next = 1;

  now = () => this.#now;
  setTimeout = (run, ms) => {
    this.#timers.set(this.#next, { run, at: this.#now + ms });
    return this.#next++;
  };
  clearTimeout = (timer) => this.#timers.delete(timer);

  get waiting() {
    return this.#timers.size;
  }

  /** Let time pass; what falls due runs at its moment. */
  pass(ms) {
    const until = this.#now + ms;
    for (;;) {
      const due = [...this.#timers].filter(([, { at }]) => at <= until).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!due) break;
      this.#timers.delete(due[0]);
      this.#now = due[1].at;
      due[1].run();
    }
    this.#now = until;
  }
}

/** Return a fake EventSource class that records its instances. */
export function fakeEventSource() {
  return class FakeEventSource extends EventTarget {
    static made = [];
    static get last() {
      return this.made.at(-1);
    }
    static get open() {
      return this.made.filter(({ readyState }) => readyState !== 2);
    }

    readyState = 0;
    onopen = null;
    onerror = null;

    constructor(url) {
      super();
      this.url = new URL(url);
      this.constructor.made.push(this);
    }

    close() {
      this.readyState = 2;
    }

    // Actions of the server and the network:
    accept() {
      this.readyState = 1;
      this.onopen?.({});
    }
    send(type, envelope, lastEventId = '') {
      if (this.readyState === 2) return;
      this.dispatchEvent(new MessageEvent(type, { data: JSON.stringify(envelope), lastEventId }));
    }
    lose() {
      this.readyState = 0;
      this.onerror?.({});
    }
    giveUp() {
      this.readyState = 2;
      this.onerror?.({});
    }
  };
}

export function fakePage() {
  const document = Object.assign(new EventTarget(), { visibilityState: 'visible' });
  const window = new EventTarget();
  return {
    window,
    document,
    fire: (type) => window.dispatchEvent(new Event(type)),
    see(visibilityState) {
      document.visibilityState = visibilityState;
      document.dispatchEvent(new Event('visibilitychange'));
    },
  };
}

/** Wait until the callbacks of settled promises have run. */
export const settle = () => new Promise((done) => setImmediate(done));

export const CREATED = '2026-11-21T02:00:00.000Z';

export function operation(changes = {}) {
  return {
    id: 'import-42', kind: 'import', title: 'Import', owner: null, tags: [], parent: null, weight: 1,
    status: 'running', done: false, attempt: 1, worker: null, cancel_requested: false, cancel: null,
    progress: null, children: null, result: null, error: null,
    created_at: CREATED, started_at: CREATED, updated_at: CREATED, finished_at: null, expires_at: null,
    position: `${changes.events ?? 3}-0`, events: 3, ...changes,
  };
}

export function event(type, n, data, more = {}) {
  return { type, position: `${n}-0`, operation: 'import-42', n, time: 1_763_690_400_000 + n, data, reset: null, ...more };
}
