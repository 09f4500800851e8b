/** Reports when a page becomes hidden, and when it is back. */

/** @typedef {'pageshow'|'online'|'visible'|'resume'} Why */

/**
 * @typedef {object} Page
 * @property {EventTarget} [window]
 * @property {(EventTarget & {visibilityState?: string})} [document]
 */

/**
 * Follow the page. `away`: it may become frozen, so connections should be closed. (An open one can also keep it out
 * of the back/forward cache.) `back`: it is visible again, or the network is back. Connections may then be dead without
 * an error, because phones close sockets silently.
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
  document?.addEventListener('resume', resumed); // events during the freeze were missed
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
