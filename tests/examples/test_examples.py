"""Each example as its users run it: one command, a real browser, a bar that moves, a server that restarts, a cancel."""

import os
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.docs.blocks import ROOT
from tests.e2e.browser import launched, visited
from tests.servers import Process, free_port, wait_until

INSTALL_S = 900
SERVERS = {"fastapi-celery": "web", "django-rq": "web", "flask-worker": "progress"}
"""The program of each example that serves streams."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


def pids(example: Process, program: str) -> list[int]:
    return [int(pid) for pid in re.findall(rf"^{program}: pid (\d+)$", example.output(), re.MULTILINE)]


class Example(Process):
    """An example. If its test fails, its programs, which lead groups of their own, are killed with it."""

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for pid in re.findall(r"^\w+: pid (\d+)$", self.output(), re.MULTILINE):
            with suppress(ProcessLookupError):
                os.killpg(int(pid), signal.SIGKILL)


def percent(page: Page) -> float:
    value: float = page.locator("progress").first.evaluate("bar => bar.value")
    return value


def wait_for_more(page: Page) -> None:
    before = percent(page)
    wait_until(lambda: percent(page) > before, "the bar moves")


@pytest.mark.timeout(INSTALL_S + 300)
@pytest.mark.parametrize("name", SERVERS)
def test_a_user_signs_in_and_sees_the_bar_move_through_a_restart_and_cancels(
    name: str, browser: Browser, tmp_path: Path
) -> None:
    port = free_port()
    ports = {"PORT": port, "PROGRESS_PORT": free_port(), "REDIS_PORT": free_port()}
    env = {it: value for it, value in os.environ.items() if not it.startswith("PROGRESS_")}
    example = Example(
        [sys.executable, str(ROOT / "examples" / "run"), name],
        tmp_path / "log",
        env | {it: str(value) for it, value in ports.items()},
    )
    with example:
        pages = [f"http://127.0.0.1:{port}/"]
        pages += [f"http://127.0.0.1:{ports['PROGRESS_PORT']}/readyz"] if SERVERS[name] == "progress" else []
        wait_until(lambda: all(_is_up(example, it) for it in pages), f"{name} starts: {tmp_path / 'log'}", INSTALL_S)
        with visited(browser, f"http://127.0.0.1:{port}/", network_may_fail=True) as page:
            page.locator("input:not([type=hidden])").first.fill("alice")
            page.locator("input[type=password]").fill("alice")
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("button", name="Start an import").click()
            text = page.locator("output").first
            expect(text).to_contain_text("running")
            wait_for_more(page)
            [server] = pids(example, SERVERS[name])
            os.kill(server, signal.SIGTERM)
            wait_until(lambda: len(pids(example, SERVERS[name])) == 2, "the server is started again")
            wait_for_more(page)
            page.screenshot(path=str(tmp_path / f"{name}.png"))
            page.reload()
            expect(text).to_contain_text("running")
            wait_for_more(page)
            page.get_by_role("button", name="Cancel").first.click()
            expect(text).to_contain_text("cancelled")
        assert example.stop() == 0, example.output()
        for pid in {pid for program in ("redis", "web", "worker", "progress") for pid in pids(example, program)}:
            assert not Path(f"/proc/{pid}").exists(), "an example leaves nothing running"


def _is_up(example: Process, url: str) -> bool:
    assert example.popen is not None
    assert example.popen.poll() is None, example.output()
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
