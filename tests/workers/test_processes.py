"""Threads, forks, processes and their ends; and the examples in the docstrings."""

import threading
from typing import Any

import pytest

from progress_broker.model.operation import Operation as Shown
from progress_broker.model.operation import Status
from progress_workers import Operation
from progress_workers.core.progress.counter import Counter
from progress_workers.core.progress.dirty import DirtyFlag
from tests.workers.harness import Broker, assert_whole, finished, python, worker


def shown(broker: Broker) -> list[Shown]:
    found = [key.decode() for key in broker.keys("*:op:*:events")]
    ids = [key.split(":op:")[1].removesuffix(":events") for key in found]
    return [broker.show(id) for id in ids if not id.startswith("~")]  # those of a server's probes


DOCTEST = """
    import doctest, importlib, pkgutil, progress_workers
    skipped = ("progress_workers.queues",)
    found = pkgutil.walk_packages(progress_workers.__path__, "progress_workers.")
    names = [name for _, name, _ in found if not name.startswith(skipped)]
    for name in ["progress_workers", *names]:
        result = doctest.testmod(importlib.import_module(name))
        print(name, result.attempted, result.failed)
        assert result.failed == 0
"""


def test_every_example_of_the_guide_and_of_the_docstrings_works_as_written(address: str, broker: Broker) -> None:
    tried = dict(line.split()[:2] for line in finished(python(address, DOCTEST)).splitlines())
    assert int(tried["progress_workers"]) > 10
    assert int(tried["progress_workers.operation"]) > 2
    operations = shown(broker)
    assert {operation.kind for operation in operations} > {"import", "report", "nightly", "region", "jewelry"}
    for operation in operations:
        assert_whole(broker.events(operation.id))
        if operation.kind in ("import", "report"):
            assert operation.status is Status.SUCCEEDED
            assert operation.progress is not None
            assert operation.progress["percent"] == 100


def test_no_count_is_lost_between_threads() -> None:
    gauge = Counter(DirtyFlag(lambda: None))

    def count() -> None:
        for _ in range(20_000):
            gauge.advance(1)
        for _ in gauge.track(range(20_000)):
            pass

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        gauge.set(gauge.current)  # an update during counting must not lose later counts
        assert gauge.current >= 0
    assert gauge.current <= 8 * 40_000
    exact = Counter(DirtyFlag(lambda: None))
    threads = [threading.Thread(target=lambda: [exact.advance(1) for _ in range(20_000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert exact.current == 160_000


def test_threads_report_on_one_operation(broker: Broker) -> None:
    with Operation.start("import", id="op", total=8000, settings=broker.settings) as op:

        def part(number: int) -> None:
            with op.stage(f"part {number}", total=1000) as stage:
                for _ in stage.track(range(1000)):
                    op.advance(1)
                stage.log("done")

        threads = [threading.Thread(target=part, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert_whole(broker.events("op"))
    last = broker.data("op", "progress")[-1]
    assert (last["current"], last["percent"]) == (8000, 100.0)
    assert {stage["status"] for stage in last["stages"]} == {"succeeded"}
    assert sorted(line["stage"] for line in broker.data("op", "log")) == [f"part {number}" for number in range(8)]


def test_a_forked_child_reports_as_another_producer(address: str, broker: Broker) -> None:
    code = """
        import os, sys
        import progress_workers
        from progress_workers import Operation

        with Operation.start("import", id="parent", interval_s=0.01) as op:
            op.log("before")
            op.advance(1)
            child = os.fork()
            if child == 0:
                op.log("inherited")
                with Operation.start("import", id="child") as own:
                    own.log("own")
                grandchild = os.fork()
                if grandchild == 0:
                    op.log("grandchild")
                    os._exit(0 if progress_workers.flush() else 1)
                assert os.waitpid(grandchild, 0)[1] == 0
                # This leaves the parent's block in the child, which must not end the parent's operation.
                sys.exit(0 if progress_workers.flush() else 1)
            assert os.waitpid(child, 0)[1] == 0
            op.log("after")
    """
    finished(python(address, code))
    events = broker.events("parent")
    assert_whole(events)
    assert sorted(broker.logged("parent")) == ["after", "before", "grandchild", "inherited"]
    assert events[-1].data["status"] == "succeeded"
    assert len({event.producer for event in events if event.producer}) == 3
    assert broker.logged("child") == ["own"]
    assert broker.show("child").status is Status.SUCCEEDED


def test_a_child_of_multiprocessing_tells_everything_before_it_ends(address: str, broker: Broker) -> None:
    code = """
        import multiprocessing
        from progress_workers import Operation

        with Operation.start("import", id="pool", interval_s=0.5) as op:
            op.flush()
            children = [multiprocessing.get_context("fork").Process(target=op.log, args=[name]) for name in "abc"]
            for child in children:
                child.start()
            for child in children:
                child.join()
    """
    finished(python(address, code))
    assert sorted(broker.logged("pool")) == ["a", "b", "c"]
    assert_whole(broker.events("pool"))


def test_two_processes_report_on_one_operation(address: str, broker: Broker) -> None:
    code = """
        from progress_workers import Operation

        with Operation.attach("shared", end_on_exit=False, interval_s=0.001) as op:
            print("joined", flush=True)
            input()
            for number in range(200):
                op.log(f"{NAME} {number}")
                op.advance(1)
    """
    with Operation.start("import", id="shared", settings=broker.settings):
        processes = [worker(address, f"NAME = {name!r}\n" + _dedented(code)) for name in "ab"]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "joined\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            finished(process)
    assert_whole(broker.events("shared"))
    lines = broker.logged("shared")
    for name in "ab":
        assert [line for line in lines if line.startswith(name)] == [f"{name} {number}" for number in range(200)]
    assert broker.show("shared").status is Status.SUCCEEDED


def test_a_process_that_ends_at_once_has_still_told_everything(address: str, broker: Broker) -> None:
    code = """
        from progress_workers import Operation

        op = Operation.start("import", id="brief")
        op.advance(5)
        op.log("the last word")
        op.succeed({"rows": 5})
    """
    finished(python(address, code))
    assert broker.logged("brief") == ["the last word"]
    assert broker.show("brief").result == {"rows": 5}


def test_an_interrupted_process_has_cancelled_its_operation(address: str, broker: Broker) -> None:
    code = """
        import signal
        from progress_workers import Operation

        with Operation.start("import", id="interrupted") as op:
            signal.raise_signal(signal.SIGINT)
    """
    _, err = python(address, code).communicate(timeout=30)
    assert "KeyboardInterrupt" in err
    assert broker.show("interrupted").status is Status.CANCELLED


def test_a_signal_handler_may_report_in_the_middle_of_a_report(address: str, broker: Broker) -> None:
    code = """
        import signal
        from progress_workers import Operation

        with Operation.start("import", id="timed") as op:
            signal.signal(signal.SIGALRM, lambda *_: op.log("tick"))
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            for number in range(20_000):
                op.update(current=number, message="busy")
            signal.setitimer(signal.ITIMER_REAL, 0)
    """
    finished(worker(address, code))
    assert broker.data("timed", "progress")[-1]["current"] == 19_999
    assert_whole(broker.events("timed"))


@pytest.mark.over_redis
def test_the_embedded_redis_is_found_by_its_address(address: str, broker: Broker, tmp_path: Any) -> None:
    (tmp_path / "address").write_text(address + "\n")
    settings = type(broker.settings)(_env_file=None, data_dir=tmp_path)
    with Operation.start("import", id="found", settings=settings):
        pass
    assert broker.show("found").status is Status.SUCCEEDED


def _dedented(code: str) -> str:
    import textwrap

    return textwrap.dedent(code)
