"""Compressed streams with real clients: each event arrives as it happens, and the end is valid."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser

from tests import sse
from tests.e2e.browser import visited
from tests.e2e.harness import ROOT, Api, node
from tests.e2e.test_browser import FOLLOW, NAMES
from tests.servers import Process, need, wait_until

LINES = 5


def line(n: int) -> str:
    return f"line {n}: " + f"{n} " * 200 * (n % 2)  # every second one is long enough to be compressed


@pytest.mark.parametrize("reader", ["curl", "node"])
def test_a_program_sees_each_event_at_once(api: Api, tmp_path: Path, reader: str) -> None:
    operation = api.create()
    command = {
        "curl": [need("curl", "curl"), "--compressed", "-NsSv", "--max-time", "20", api.stream(operation)],
        "node": [node(), str(ROOT / "tests" / "e2e" / "read_gzip.mjs"), api.stream(operation)],
    }[reader]
    with Process(command, tmp_path / "out") as process:
        wait_until(lambda: "event: snapshot" in process.output(), "the snapshot comes")
        for n in range(LINES):
            api.log(operation, line(n))
            wait_until(lambda n=n: f"line {n}:" in process.output(), "each line comes at once")  # type: ignore[misc]
        wait_until(lambda: "\n: ping\n" in process.output(), "so does a ping")
        api.finish(operation)
        assert process.popen is not None
        assert process.popen.wait(30) == 0, process.output()
        if reader == "curl":
            assert "< content-encoding: gzip" in process.output()
        assert process.output().count(f'"message":"{line(3)}"') == 1
        assert "event: end" in process.output()


def test_httpx_sees_each_event_at_once_and_resumes(api: Api) -> None:
    operation = api.create()
    with httpx.stream("GET", api.stream(operation), headers={"Accept-Encoding": "gzip"}, timeout=60) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        text, pieces = "", answer.iter_text()
        for n in range(LINES):
            api.log(operation, line(n))
            while f"line {n}:" not in text:
                text += next(pieces)
        api.finish(operation)
        text += "".join(pieces)
    messages = sse.read(text.encode())
    assert [message.json["n"] for message in messages] == list(range(1, LINES + 3))
    for message in messages[:-1]:
        rest = api.http.get(api.stream(operation), headers={"Last-Event-ID": message.id, "Accept-Encoding": "gzip"})
        assert [each.json["n"] for each in sse.read(rest.content)] == list(range(message.json["n"] + 1, LINES + 3))


def test_a_browser_sees_each_event_at_once_and_its_end(api: Api, browser: Browser) -> None:
    operation = api.create()
    with visited(browser, f"{api.url}/") as page:
        with page.expect_response("**/stream") as opened:
            page.evaluate(FOLLOW, [api.stream(operation), NAMES])
        assert opened.value.headers["content-encoding"] == "gzip"
        for n in range(LINES):
            api.log(operation, line(n))
            page.wait_for_function("text => seen.some(({ envelope }) => envelope.data?.message === text)", arg=line(n))
        api.finish(operation)
        page.wait_for_function("() => seen.some(({ name }) => name === 'end')")
        # After the end EventSource reconnects with that position, and gets a 204.
        page.wait_for_function("() => source.readyState === EventSource.CLOSED")
        assert [event["envelope"]["n"] for event in page.evaluate("() => seen")] == list(range(1, LINES + 3))
