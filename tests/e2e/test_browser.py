"""The browser's EventSource, without our client, on a page of the server."""

import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.browser import visited
from tests.e2e.conftest import StartReplica
from tests.e2e.harness import Api, ForeignWorker
from tests.servers import ApiReplica, RealRedis, wait_until

FOLLOW = """
    ([url, names]) => {
      globalThis.seen = [];
      globalThis.opened = 0;
      globalThis.broke = [];
      const source = globalThis.source = new EventSource(url);
      source.onopen = () => globalThis.opened++;
      source.onerror = () => globalThis.broke.push(performance.now());
      for (const name of names) {
        source.addEventListener(name, ({ data, lastEventId }) => {
          globalThis.seen.push({ name, id: lastEventId, envelope: JSON.parse(data), at: performance.now() });
        });
      }
    }
"""
NAMES = ["snapshot", "progress", "log", "status", "end", "reconnect", "ping", "pipeline_progress", "message"]
CLOSED = 2


@pytest.fixture
def frail(start_replica: StartReplica, e2e_redis: RealRedis) -> ApiReplica:
    return start_replica(e2e_redis.url)


@pytest.fixture
def frail_api(frail: ApiReplica) -> Iterator[Api]:
    with Api(frail.url) as caller:
        yield caller


def follow(page: Page, url: str) -> None:
    page.evaluate(FOLLOW, [url, NAMES])


def seen(page: Page, *names: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate("() => globalThis.seen")
    return [event for event in found if not names or event["name"] in names]


def closed(page: Page) -> bool:
    return bool(page.evaluate("() => globalThis.source.readyState") == CLOSED)


def test_named_events_and_the_end(api: Api, browser: Browser) -> None:
    operation = api.create(title="zwölf \u2028 Boxkämpfer")
    with visited(browser, api.url) as page:
        follow(page, f"/v1/operations/{operation}/stream?ping=event")
        wait_until(lambda: seen(page, "snapshot"), "the snapshot comes")
        api.publish(operation, "progress", {"current": 1})
        api.publish(operation, "pipeline_progress", {"nasty": "a\n\ndata: b\r\u2028\0"})
        wait_until(lambda: seen(page, "ping"), "so does a ping")
        api.finish(operation)
        wait_until(lambda: closed(page), "it comes back to a 204, and stops")
        events = seen(page, "snapshot", "status", "progress", "pipeline_progress", "end", "message")
        last = api.show(operation)
        # A ping after an event keeps that event's position.
        assert seen(page, "ping")[0]["id"] in {event["id"] for event in events}
    assert [event["name"] for event in events] == ["snapshot", "status", "progress", "pipeline_progress", "end"]
    assert [event["envelope"]["n"] for event in events] == [1, 2, 3, 4, 5]
    assert events[0]["envelope"]["data"]["title"] == "zwölf \u2028 Boxkämpfer"
    assert events[3]["envelope"]["data"] == {"nasty": "a\n\ndata: b\r\u2028\0"}
    assert events[-1]["id"] == last["position"]


def test_it_reconnects_by_itself_to_a_replica_that_came_back(
    frail: ApiReplica, frail_api: Api, foreign: ForeignWorker, browser: Browser
) -> None:
    api, operation = frail_api, frail_api.create()
    with visited(browser, api.url, network_may_fail=True) as page:
        follow(page, f"/v1/operations/{operation}/stream?from=start")
        api.log(operation, "one", "two")
        wait_until(lambda: len(seen(page)) == 3, "it is live")
        frail.stop(signal.SIGKILL)
        foreign.publish(operation, "log", b'{"message":"while it was away"}')
        wait_until(lambda: page.evaluate("() => globalThis.broke.length"), "it has noticed")
        frail.start().await_ready()
        wait_until(lambda: len(seen(page)) == 4, "it resumed")
        api.log(operation, "after")
        api.finish(operation)
        wait_until(lambda: closed(page), "it stops for good on 204")
        events = seen(page)
        assert page.evaluate("() => globalThis.opened") == 2
        history = api.history(operation)
    assert [event["envelope"] for event in events] == history
    assert [event["envelope"]["n"] for event in events] == [1, 2, 3, 4, 5, 6]


def test_retry_is_heeded_and_a_rejection_as_200_is_survived(
    start_replica: StartReplica, tmp_path: Path, browser: Browser
) -> None:
    """Redis is unavailable when it reconnects. A 503 would stop it for good, so it is asked to reconnect, and does."""
    with (
        RealRedis(tmp_path / "redis", keep=True, options=("--appendfsync", "always")) as redis,
        Api(start_replica(redis.url, retry_ms=400, stream_max_age_s=1).url) as api,
        visited(browser, api.url, network_may_fail=True) as page,
    ):
        operation = api.create()
        follow(page, f"/v1/operations/{operation}/stream")
        wait_until(lambda: seen(page, "snapshot"), "it is live")
        redis.stop()
        wait_until(lambda: len(_reasons(page, "storage-unavailable")) >= 3, "it is sent away, and comes again")
        redis.start()
        wait_until(lambda: api.http.get("/readyz").status_code == 200, "Redis is back")
        api.log(operation, "one")
        wait_until(lambda: seen(page, "log"), "it goes on")
        api.finish(operation)
        wait_until(lambda: closed(page), "it stops for good")
        rejected = [event["at"] for event in _reasons(page, "storage-unavailable")]
        assert _reasons(page, "max-age")
        events = seen(page, "snapshot", "log", "end")
    assert [event["envelope"]["n"] for event in events] == [1, 2, 3]
    waits = [later - earlier for earlier, later in pairwise(rejected)]
    assert min(waits) >= 190, waits  # half of `retry_ms`, the minimum with jitter


def _reasons(page: Page, reason: str) -> list[dict[str, Any]]:
    return [event for event in seen(page, "reconnect") if event["envelope"]["reason"] == reason]


@pytest.mark.parametrize("path", ["nowhere/stream", "nowhere/stream?from=end"])
def test_a_lasting_rejection_closes_it(api: Api, browser: Browser, path: str) -> None:
    with visited(browser, api.url, network_may_fail=True) as page:
        follow(page, f"/v1/operations/{path}")
        wait_until(lambda: closed(page), "it gives up")
        assert seen(page) == []
