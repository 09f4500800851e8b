"""`demo` and its workers."""

import json
import os
import signal
import sys
import threading
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from progress_broker.settings import Settings
from progress_cli.demo.archiving import archive_library
from progress_cli.demo.compiling import compile_library
from progress_cli.demo.importing import generate_batches, import_customers
from progress_workers import Cancelled, Operation
from tests.cli.conftest import Shell, mentioning
from tests.conftest import make_settings
from tests.servers import Process, free_port, wait_until

SLOW_S = 240
"""Five processes start at once, and each imports a lot."""


def operations(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/v1/operations", timeout=60) as answer:
        found: list[dict[str, Any]] = json.load(answer)["operations"]
        return found


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "t"
    folder.mkdir()
    return folder


def demo(start: Callable[..., Process], temporary: Path, *words: str) -> tuple[Process, str]:
    port = str(free_port())
    return start("demo", "--port", port, *words, TMPDIR=str(temporary)), f"http://127.0.0.1:{port}"


def test_a_round_does_three_jobs_and_leaves_nothing(lonely: Shell, temporary: Path) -> None:
    process, url = demo(lonely.interpreter, temporary, "--rounds", "1")
    seen: dict[str, dict[str, Any]] = {}
    with process:
        wait_until(lambda: "curl -N" in process.output(), "the demo says where to look", SLOW_S)
        assert url in process.output()
        with urllib.request.urlopen(url, timeout=60) as page:
            assert page.status == 200
        command = process.output().partition("curl -N '")[2].partition("'")[0]
        with urllib.request.urlopen(command, timeout=120) as stream:
            assert b"retry:" in stream.readline()

        def ended() -> bool:
            assert process.popen is not None
            with suppress(OSError):
                seen.update((operation["kind"], operation) for operation in operations(url))
            return process.popen.poll() is not None

        wait_until(ended, "the round ends", SLOW_S)
        assert process.popen is not None
        assert process.popen.returncode == 0
    assert set(seen) == {"import", "archive", "compile"}
    assert not any(operation["status"] == "failed" for operation in seen.values())
    assert list(temporary.iterdir()) == []
    assert mentioning(str(temporary)) == []


def test_a_killed_worker_is_replaced_and_ctrl_c_leaves_nothing(lonely: Shell, temporary: Path) -> None:
    process, url = demo(lonely.process, temporary)
    with process:
        wait_until(lambda: "curl -N" in process.output(), "the demo says where to look", SLOW_S)
        assert url in process.output()
        os.kill(worker_pid(temporary, "archive"), signal.SIGKILL)
        wait_until(lambda: "starting another one" in process.output(), "its death is noticed", SLOW_S)
        assert process.stop(signal.SIGINT) == 0
        assert "Traceback" not in process.output()
    assert list(temporary.iterdir()) == []
    wait_until(
        lambda: mentioning(str(temporary)) == [], "nothing is left"
    )  # a process that was just starting ends by itself


def worker_pid(temporary: Path, job: str) -> int:
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            ours = str(temporary).encode() in (entry / "environ").read_bytes()
        except OSError:
            continue
        if ours and b"progress_cli.demo" in words and job.encode() in words:
            return int(entry.name)
    return 0


@pytest.fixture
def to_redis(redis_url: str) -> Settings:
    return make_settings(redis_url=redis_url)


@pytest.fixture
def here(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return temporary


def test_told_to_stop_while_it_starts_it_leaves_nothing(lonely: Shell, temporary: Path) -> None:
    process, _ = demo(lonely.process, temporary)
    with process:
        wait_until(lambda: mentioning(str(temporary / "progress")), "its Redis starts", SLOW_S)
        assert process.stop(signal.SIGTERM) == 0
        assert "Traceback" not in process.output()
    assert list(temporary.iterdir()) == []
    assert mentioning(str(temporary)) == []


def test_the_jobs_do_what_they_say(to_redis: Settings, here: Path, shell: Shell) -> None:
    tree = here / "tree"
    tree.mkdir()
    for number in range(20):
        (tree / f"{number}.py").write_text("x = 1\n" * 1000)
    with Operation.start("import", id="i", settings=to_redis) as op:
        import_customers(op, rows=5_000)
    with Operation.start("archive", id="a", settings=to_redis, unit="bytes") as op:
        archive_library(op, tree)
    with Operation.start("compile", id="c", settings=to_redis) as op:
        compile_library(op, ("json",))
    done = {operation["id"]: operation for operation in shell.lines("ls")}
    assert done["i"]["result"] == {"imported": 5_000, "cities": 10}
    assert [stage["status"] for stage in done["i"]["progress"]["stages"]] == ["succeeded"] * 3
    assert (done["a"]["result"]["files"], done["a"]["result"]["bytes"]) == (20, 120_000)
    assert done["a"]["progress"]["percent"] == 100
    assert done["c"]["result"]["compiled"] >= 5
    assert {operation["status"] for operation in done.values()} == {"succeeded"}
    assert "Compiling '/json/decoder.py'" in shell.says("tail", "c", "--from", "start")
    assert [path.name for path in here.iterdir()] == ["tree"]


@pytest.mark.parametrize("job", [import_customers, archive_library, compile_library])
def test_a_job_that_is_cancelled_stops_and_cleans_up(job: Any, to_redis: Settings, here: Path, shell: Shell) -> None:
    op = Operation.start("job", id="a", settings=to_redis)
    shell.says("cancel", "a")
    wait_until(lambda: op.cancelled, "the cancel arrives")
    with pytest.raises(Cancelled), op:
        job(op)
    assert shell.lines("show", "a")[0]["status"] == "cancelled"
    assert list(here.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]


def test_customers_are_the_same_every_time() -> None:
    assert list(generate_batches(2_500)) == list(generate_batches(2_500))
    assert [len(batch) for batch in generate_batches(2_500)] == [1000, 1000, 500]


def test_the_worker_rejects_a_job_it_does_not_know(shell: Shell) -> None:
    worker = Process([sys.executable, "-P", "-m", "progress_cli.demo", "nonsense"], shell.folder / "out", shell.env)
    with worker:
        assert worker.popen is not None
        assert worker.popen.wait(120) == 2
    assert "unknown job 'nonsense'" in worker.output()
