/** When a page goes out of sight, and when it comes back. */

/** @typedef {'pageshow'|'online'|'visible'|'resume'} Why */

/**
 * @typedef {object} Page
 * @property {EventTarget} [window]
 * @property {(EventTarget & {visibilityState?: string})} [document]
 */

/**
 * Follow the page. `away`: it may be frozen, so connections should be closed (an open one can also keep it out
 * of the back/forward cache). `back`: it is seen again or the network is back, and what was open may be dead
 * without a sign: a phone cuts sockets without telling.
 * @param {Page} page usually `globalThis`
 * @param {{away: () => void, back: (why: Why) => void, hiddenIsAway?: boolean}} on
 * @returns {() => void} stops following
 */
export function followPage(page, { away, back, hiddenIsAway = false }) {
  const { window, document } = page;
  const come = (/** @type {Why} */ why) => {
    if (!(hiddenIsAway && hidden(page))) back(why);
  };
  const visibility = () => {
    if (!hidden(page)) come('visible');
    else if (hiddenIsAway) away();
  };
  const shown = () => come('pageshow');
  const online = () => come('online');
  const resumed = () => come('resume');
  window?.addEventListener('pagehide', away);
  window?.addEventListener('pageshow', shown);
  window?.addEventListener('online', online);
  document?.addEventListener('visibilitychange', visibility);
  document?.addEventListener('resume', resumed); // what happened while it was frozen was not heard
  return () => {
    window?.removeEventListener('pagehide', away);
    window?.removeEventListener('pageshow', shown);
    window?.removeEventListener('online', online);
    document?.removeEventListener('visibilitychange', visibility);
    document?.removeEventListener('resume', resumed);
  };
}

/** @param {Page} page */
export function hidden(page) {
  return page.document?.visibilityState === 'hidden';
}
