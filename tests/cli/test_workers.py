"""What the command line shows of workers that fall silent, return or are replaced, and the messages to them."""

import asyncio
import json
import os
import pty
from collections.abc import Iterator

import pytest

from progress_broker.operations.reaper import Reaper
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from progress_cli.caller import caller
from progress_workers import Operation, Signal
from tests.cli.conftest import Shell
from tests.forked import Forked
from tests.servers import wait_until


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(_env_file=None, redis_url=redis_url)


@pytest.fixture
def stalled(shell: Shell, settings: Settings) -> str:
    """An operation at 40 % whose worker has fallen silent."""
    shell.env["PROGRESS_LEASE_S"] = "0.05"
    shell.says("publish", "a", "--create", "--type", "progress", "--data", '{"percent": 40}')

    async def reap() -> bool:
        async with await Store.open(settings) as store:
            await Reaper(store).reap()
            return (await store.get("a")).status == "stalled"

    wait_until(lambda: asyncio.run(reap()), "it stalls")
    return "a"


@pytest.fixture
def worker(settings: Settings) -> Iterator[Operation]:
    with Operation.start("import", id="a", settings=settings) as op:
        yield op


def test_a_silent_worker_is_told_of(shell: Shell, stalled: str) -> None:
    shown = shell.says("show", stalled)
    assert "stalled" in shown
    assert "no heartbeat from its worker since 20" in shown
    shell.says("publish", stalled, "--type", "progress", "--data", '{"percent": 41}')
    assert "no heartbeat" not in shell.says("show", stalled)


def test_a_log_tells_of_workers_in_words(shell: Shell, stalled: str, settings: Settings) -> None:
    shell.says("publish", stalled, "--type", "progress", "--data", '{"percent": 41}')
    op = Operation.attach(stalled, new_attempt=True, worker="host-8:77", settings=settings)
    assert op.flush()
    assert "attempt  2" in shell.says("show", stalled)
    shell.says("cancel", stalled, "--reason", "too slow")
    wait_until(lambda: op.cancelled, "it hears of it")
    shell.says("cancel", stalled, "--force")
    lines = shell.run("tail", stalled, "--from", "start").stdout.splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines] == [
        "pending",
        "running",
        "40.0 %",
        "stalled: no heartbeat from its worker",
        "running again",
        "41.0 %",
        "running: attempt 2 started by host-8:77",
        f"cancelling: asked to stop by {caller()}: too slow",
        f"cancelled  cancelled: ended by force (by {caller()})",
    ]


def test_a_tail_that_begins_with_a_silent_worker_knows_when_it_is_back(shell: Shell, stalled: str) -> None:
    with shell.open("tail", stalled) as tail:
        assert tail.stdout
        assert tail.stdout.readline() == b"a: now stalled  40.0 %\n"
        shell.says("publish", stalled, "--type", "end", "--data", '{"status": "failed"}')
        assert tail.wait(120) == 1
        assert tail.stdout.read().split(maxsplit=2)[2] == b"failed\n"


def test_on_a_terminal_the_bar_says_that_its_worker_is_silent_and_begins_anew(
    shell: Shell, stalled: str, settings: Settings
) -> None:
    ours, theirs = pty.openpty()
    env = shell.env | {"TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}
    shown = b""
    with Forked(["tail", stalled], theirs, env, stdin=theirs) as tail:
        os.close(theirs)

        def read(text: bytes) -> bool:
            nonlocal shown
            shown += os.read(ours, 65_536)
            return text in shown

        wait_until(lambda: read(b"stalled  40.0 %"), "the bar is drawn")
        with Operation.attach(stalled, new_attempt=True, worker="host-8:77", settings=settings):
            wait_until(lambda: read(b"running: attempt 2 started by host-8:77"), "the line is shown")
            seen = len(shown) - len(shown.rpartition(b"attempt 2 started")[2])
        wait_until(lambda: read(b"succeeded"), "it ends")
        assert tail.wait(120) == 0
    os.close(ours)
    assert b"40.0 %" not in shown[seen:]


@pytest.mark.parametrize(
    ("words", "data"), [((), None), (("--data", '{"until": 7}'), {"until": 7}), (("--data", '"soon"'), "soon")]
)
def test_a_signal_reaches_the_worker(shell: Shell, worker: Operation, words: tuple[str, ...], data: object) -> None:
    assert shell.says("signal", "a", "pause", *words) == "a: sent pause\n"
    [told] = shell.lines("signal", "a", "resume", *words)
    assert told == {"id": "a", "type": "resume", "data": data, "by": caller()}
    heard = worker.signals(timeout=60)
    assert [next(heard), next(heard)] == [Signal("pause", data, caller()), Signal("resume", data, caller())]


def test_a_signal_that_can_not_be_sent_says_why(shell: Shell, settings: Settings) -> None:
    assert "there is no operation nope" in shell.fails(4, "signal", "nope", "pause")
    Operation.create("import", id="a", settings=settings)
    assert "`cancel` is not a signal type" in shell.fails(2, "signal", "a", "cancel")
    assert "type" in shell.fails(2, "signal", "a", "Pause!")
    assert "not JSON" in shell.fails(2, "signal", "a", "pause", "--data", "{")
    assert "bytes" in shell.fails(2, "signal", "a", "pause", "--data", json.dumps("x" * 70_000))
    shell.says("cancel", "a")
    assert "is already cancelled" in shell.fails(2, "signal", "a", "pause")
