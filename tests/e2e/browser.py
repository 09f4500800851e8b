"""Chromium, with pages that record all of their errors."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, expect, sync_playwright

from tests.servers import START_S, need

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
DEADLINE_MS, START_MS = 60_000, 1000 * START_S
NETWORK = "Failed to load resource: "
"""What Chromium itself says in the console of a request that failed; a page can't keep it from that."""

WATCH_CSP = """
    globalThis.violations = [];
    addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
      globalThis.violations.push(`${violatedDirective}: ${blockedURI}`);
    });
"""


@contextmanager
def launched() -> Iterator[Browser]:
    """Start Chromium without what draws windows: it takes half the time of a processor. Any Chromium does, too."""
    expect.set_options(timeout=DEADLINE_MS)
    with sync_playwright() as playwright:
        path = shutil.which("chromium-headless-shell") or _chromium()
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS, timeout=START_MS)
        yield browser
        browser.close()


@contextmanager
def launched_whole(beside: Browser) -> Iterator[Browser]:
    """Start all of Chromium: it alone keeps a page that was left in its back/forward cache, to show it again."""
    kept = ["--disable-back-forward-cache"]  # Playwright says so
    browser = beside.browser_type.launch(
        executable_path=_chromium(), args=ARGUMENTS, ignore_default_args=kept, timeout=START_MS
    )
    yield browser
    browser.close()


def _chromium() -> str:
    return need("chromium", "chromium")


@dataclass
class Faults:
    """The errors of a page."""

    console: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    def follow(self, page: Page) -> None:
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.others.append(str(error)))
        page.on("dialog", self._asked)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.console.append(message.text)

    def _asked(self, dialog: Dialog) -> None:
        self.others.append(f"a dialog: {dialog.message}")
        dialog.dismiss()


def still(browser: Browser, **context: Any) -> BrowserContext:
    """Return a context whose pages move nothing by themselves: each frame of that takes a processor's time here."""
    visit = browser.new_context(**({"reduced_motion": "reduce"} | context))
    visit.set_default_timeout(DEADLINE_MS)
    return visit


@contextmanager
def visited(browser: Browser, url: str, *, network_may_fail: bool = False, **context: Any) -> Iterator[Page]:
    """Open a page. At the end of the block it must have had no errors."""
    visit = still(browser, **context)
    with opened(visit, url, network_may_fail=network_may_fail) as page:
        yield page
    visit.close()


@contextmanager
def opened(context: BrowserContext, url: str, *, network_may_fail: bool = False) -> Iterator[Page]:
    """Open another window. At the end of the block it must have had no errors."""
    faults = Faults()
    page = context.new_page()
    page.add_init_script(WATCH_CSP)
    faults.follow(page)
    page.goto(url)
    yield page
    assert page.evaluate("() => globalThis.violations") == []
    assert [text for text in faults.console if not (network_may_fail and text.startswith(NETWORK))] == []
    assert faults.others == []
