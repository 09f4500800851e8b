"""Several windows of one browser. All windows together have six HTTP/1.1 connections to a host."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, expect

from tests.e2e.browser import launched_whole, opened, still
from tests.e2e.conftest import StartReplica
from tests.e2e.harness import OPS, Api
from tests.e2e.test_dashboard import bar, confirm_cancel, row
from tests.servers import RealRedis, wait_until

CALL = """async () => {
  const began = performance.now();
  const answer = await fetch('/v1/session', { signal: AbortSignal.timeout(60_000) });
  return [answer.status, performance.now() - began];
}"""
SEEN = "(state) => { Object.defineProperty(document, 'visibilityState', { configurable: true, get: () => state });"
SEEN += " Object.defineProperty(document, 'hidden', { configurable: true, get: () => state === 'hidden' });"
SEEN += " document.dispatchEvent(new Event('visibilitychange')); }"
NO_ROUNDS = """
  const wait = globalThis.setTimeout;
  globalThis.setTimeout = (run, ms, ...more) => (ms >= 2_000 ? 0 : wait(run, ms, ...more));
"""
"""Keeps a page from asking again every two seconds, so what it shows later it learned at once."""


@pytest.fixture
def api(start_replica: StartReplica, e2e_redis: RealRedis) -> Iterator[Api]:
    replica = start_replica(e2e_redis.url, prefix="windows", ping_s=15)
    replica.await_ready()
    with Api(replica.url) as caller:
        caller.http.get(OPS).raise_for_status()
        for left in caller.http.get(OPS, params={"limit": 200}).json()["operations"]:
            caller.http.delete(f"{OPS}/{left['id']}", params={"force": "true"}).raise_for_status()
        yield caller


@contextmanager
def windows(browser: Browser, count: int, url: str, script: str = "") -> Iterator[list[Page]]:
    """Open a number of windows of one browser. They share its cookies and its connections."""
    with shared(browser) as context, ExitStack() as stack:
        context.add_init_script(script)
        yield [stack.enter_context(opened(context, url, network_may_fail=True)) for _ in range(count)]


@contextmanager
def shared(browser: Browser) -> Iterator[BrowserContext]:
    context = still(browser)
    yield context
    context.close()


def open_streams(api: Api) -> int:
    """Count the streams that the server has open now."""
    lines = re.findall(r"^progress_broker_streams\{.*\} (.*)$", api.http.get("/metrics").text, re.MULTILINE)
    return int(sum(map(float, lines)))


def running(api: Api, count: int) -> list[str]:
    ids = [api.create(title=f"Operation {n}") for n in range(count)]
    for id in ids:
        api.publish(id, "progress", {"percent": 5})
    return ids


def test_each_loads_is_answered_at_once_and_can_cancel(api: Api, browser: Browser) -> None:
    """More windows than the browser has connections."""
    ids = running(api, 12)
    with windows(browser, 8, api.url) as pages:
        for page in pages:
            expect(page.locator("#operations li.row[data-connection=live]")).to_have_count(12)
        for page in pages:
            calls = [page.evaluate(CALL) for _ in range(3)]  # a busy machine may delay some of them
            assert [status for status, _ in calls] == [200] * 3
            assert min(took_ms for _, took_ms in calls) < 10_000
        assert open_streams(api) == 1
        for id, page in zip(ids, pages, strict=False):
            row(page, id).get_by_role("button", name="Cancel").click()
            confirm_cancel(page)
            expect(row(page, id)).to_have_attribute("data-status", "cancelling")
            assert api.show(id)["cancel_requested"] is True
        for n, (id, page) in enumerate(zip(reversed(ids), pages, strict=False)):
            api.publish(id, "progress", {"percent": 20 + n})
            expect(bar(row(page, id))).to_have_attribute("aria-valuenow", str(20 + n))
        assert open_streams(api) == 1


def test_each_shows_another_operation_s_details_over_the_same_stream(api: Api, browser: Browser) -> None:
    ids = running(api, 3)
    with windows(browser, 3, api.url) as pages:
        for id, page in zip(ids, pages, strict=True):
            api.log(id, "before")
            row(page, id).get_by_role("link").click()
            expect(page.locator("#log > li")).to_have_count(1)
            expect(page.locator("#detail-connection")).to_have_attribute("data-state", "live")
        for id in ids:
            api.log(id, *(f"line {n}." for n in range(20)))
        for page in pages:
            expect(page.locator("#log > li")).to_have_count(21)
        assert open_streams(api) == 1
        for id in ids:
            api.finish(id)
        for page in pages:
            expect(page.locator("#detail-status")).to_have_text("succeeded")
        wait_until(lambda: open_streams(api) == 0, "nothing is left to follow")


@pytest.mark.parametrize("how", ["close", "crash", "navigate"])
def test_one_that_goes_takes_nothing_from_the_others(api: Api, browser: Browser, how: str) -> None:
    """The process of the first window runs the shared worker."""
    ids = running(api, 2)
    with shared(browser) as context:
        first = context.new_page()
        first.goto(api.url)
        expect(row(first, ids[0])).to_have_attribute("data-connection", "live")
        with opened(context, api.url, network_may_fail=True) as other:
            expect(row(other, ids[0])).to_have_attribute("data-connection", "live")
            if how == "close":
                first.close()
            elif how == "navigate":
                first.goto("about:blank")
            else:
                with pytest.raises(Error):
                    first.goto("chrome://crash")
            other.route(re.compile(r"/v1/operations\?"), lambda route: route.abort())  # only the stream reports it
            for percent in (44, 45):  # the first may have been part of a pending response
                api.publish(ids[0], "progress", {"percent": percent})
                expect(bar(row(other, ids[0]))).to_have_attribute("aria-valuenow", str(percent))
            expect(row(other, ids[0])).to_have_attribute("data-connection", "live")
            assert open_streams(api) == 1


class Away:
    """A window that is hidden in one of several ways, and becomes visible again."""

    def __init__(self, page: Page, how: str) -> None:
        self._page, self._how = page, how
        self._browser = page.context.new_cdp_session(page)

    def leave(self) -> None:
        if self._how == "left":
            self._page.goto("about:blank")
        else:
            self._page.evaluate(SEEN, "hidden")
        if self._how == "frozen":
            self._browser.send("Page.setWebLifecycleState", {"state": "frozen"})

    def come_back(self) -> None:
        if self._how == "left":
            self._page.go_back(wait_until="commit")  # it is not reloaded, but shown as it was
            assert self._page.evaluate("() => performance.getEntriesByType('navigation')[0].type") == "navigate"
            return
        if self._how == "frozen":
            self._browser.send("Page.setWebLifecycleState", {"state": "active"})
        self._page.evaluate(SEEN, "visible")


@pytest.mark.parametrize(("how", "others"), [("hidden", 0), ("hidden", 60), ("frozen", 60)])
def test_what_ended_while_nobody_looked_is_right_at_once(api: Api, browser: Browser, how: str, others: int) -> None:
    """Including operations that have left the list, because many others have changed since."""
    see_what_ended(api, browser, how, others)


def test_what_ended_while_the_window_showed_another_page_is_right_at_once(api: Api, browser: Browser) -> None:
    with launched_whole(browser) as whole:
        see_what_ended(api, whole, "left", others=60)


def see_what_ended(api: Api, browser: Browser, how: str, others: int) -> None:
    failed, deleted, running_on, *_ = running(api, 8)  # all bounded lists start with the newest
    done = api.create(title="Done")
    api.finish(done)
    with windows(browser, 2, api.url, NO_ROUNDS) as (page, _other):
        expect(row(page, failed)).to_have_attribute("data-connection", "live")
        expect(row(page, done)).to_have_attribute("data-status", "succeeded")
        away = Away(page, how)
        away.leave()
        api.publish(
            failed, "end", {"status": "failed", "error": {"type": "ValueError", "message": "row 7 has no name"}}
        )
        for id in (deleted, done):
            api.http.delete(f"{OPS}/{id}", params={"force": "true"}).raise_for_status()
        api.publish(running_on, "progress", {"percent": 70})
        for _ in range(others):
            api.create()
        away.come_back()
        expect(bar(row(page, running_on))).to_have_attribute("aria-valuenow", "70")
        expect(row(page, failed)).to_have_attribute("data-status", "failed")
        expect(row(page, failed)).to_contain_text("row 7 has no name")
        for id in (deleted, done):
            expect(row(page, id)).to_have_count(0)


def test_without_shared_workers_each_window_that_is_seen_has_one_stream(api: Api, browser: Browser) -> None:
    (id,) = running(api, 1)
    with shared(browser) as context, ExitStack() as stack:
        context.add_init_script("delete globalThis.SharedWorker")
        first, second = (stack.enter_context(opened(context, api.url, network_may_fail=True)) for _ in range(2))
        for page in (first, second):
            expect(row(page, id)).to_have_attribute("data-connection", "live")
        away = Away(first, "hidden")
        away.leave()
        wait_until(lambda: open_streams(api) == 1, "nobody looks at the first")
        away.come_back()
        api.publish(id, "progress", {"percent": 30})
        for page in (first, second):
            expect(row(page, id)).to_have_attribute("data-connection", "live")
            expect(bar(row(page, id))).to_have_attribute("aria-valuenow", "30")
        assert open_streams(api) == 2
