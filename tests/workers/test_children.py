"""An operation shows the progress of all its parts, wherever they are reported, and is cancelled together with them."""

import asyncio
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from progress_broker.model.operation import ChildrenSummary, Status
from progress_broker.model.publish import Created
from progress_workers import AsyncOperation, Cancelled, Operation, OperationEnded, StorageUnavailable
from progress_workers.transport.registry import link_to
from tests.servers import wait_until
from tests.workers.harness import KEYS, Broker, assert_whole, environment, finished, worker

PROCESSES = """
    import multiprocessing
    from progress_workers import Operation

    def crop(part):
        with Operation.attach(part) as op:
            for _ in op.track(range(25)):
                op.raise_if_cancelled()

    if __name__ == "__main__":
        with Operation.start("album", id="p") as album:
            parts = [Operation.create("photo", parent=album.id, weight=weight) for weight in (1, 1, 2, 4)]
            workers = [multiprocessing.Process(target=crop, args=(part,)) for part in parts]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
"""
THREADS = """
    import threading
    from progress_workers import Operation

    def crop(album, weight):
        with album.child("photo", weight=weight, total=25) as op:
            for _ in range(25):
                op.advance()

    with Operation.start("album", id="p") as album:
        threads = [threading.Thread(target=crop, args=(album, weight)) for weight in (1, 1, 2, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
"""
FUTURES = """
    from concurrent.futures import ProcessPoolExecutor
    from progress_workers import Operation

    def crop(album, weight):
        with Operation.start("photo", parent=album, weight=weight) as op:
            return sum(1 for _ in op.track(range(25)))

    if __name__ == "__main__":
        with Operation.start("album", id="p") as album, ProcessPoolExecutor(2) as pool:
            done = [pool.submit(crop, album.id, weight) for weight in (1, 1, 2, 4)]
            assert sum(future.result() for future in done) == 100
"""
ASYNCIO = """
    import asyncio
    from progress_workers import AsyncOperation

    async def crop(album, weight):
        async with album.child("photo", weight=weight) as op:
            for _ in op.track(range(25)):
                await asyncio.sleep(0)

    async def main():
        async with AsyncOperation.start("album", id="p") as album:
            await asyncio.gather(*(crop(album, weight) for weight in (1, 1, 2, 4)))

    asyncio.run(main())
"""


@pytest.mark.parametrize(
    "example", [PROCESSES, THREADS, FUTURES, ASYNCIO], ids=["processes", "threads", "futures", "asyncio"]
)
def test_whoever_reports_the_parts_the_whole_shows_them(
    broker: Broker, address: str, folder: Path, example: str
) -> None:
    if "__main__" in example:  # its processes read its file
        file = folder / "album.py"
        file.write_text(textwrap.dedent(example))
        found, pipe = environment(address), subprocess.PIPE
        finished(subprocess.Popen([sys.executable, str(file)], env=found, stdout=pipe, stderr=pipe, text=True))
    else:
        finished(worker(address, example))
    shown, events = broker.show("p"), broker.events("p")
    assert_whole(events)
    assert sorted(event.data["weight"] for event in events if event.type == "child") == [1, 1, 2, 4]
    assert (shown.status, shown.progress and shown.progress["percent"]) == (Status.SUCCEEDED, 100)
    assert shown.children == ChildrenSummary(total=4, done=4, failed=0, cancelled=0, running=0, percent=100)


def percent(broker: Broker) -> Any:
    return (broker.show("p").progress or {}).get("percent")


def test_parts_count_by_their_weights_while_they_run(broker: Broker) -> None:
    with Operation.start("album", id="p", settings=broker.settings) as album:
        big, small = album.child("photo", weight=3, total=10), album.child("photo", total=10)
        album.update(message="two of them")
        for part, by in ((big, 5), (small, 1)):
            part.advance(by)
            assert part.flush()
        assert album.flush()
        told = broker.show("p").progress or {}
        assert (told["percent"], told["rolled_up"], told["message"]) == (40, True, "two of them")
        big.succeed()
        small.fail("no such file")
        assert big.flush()
        assert small.flush()
        assert broker.show("p").children == ChildrenSummary(
            total=2, done=2, failed=1, cancelled=0, running=0, percent=77.5
        )


def test_what_the_parent_says_itself_counts(broker: Broker) -> None:
    with Operation.start("album", id="p", total=4, settings=broker.settings) as album:
        with album.child("photo"):
            pass
        album.advance()
        assert album.flush()
        assert percent(broker) == 25


def test_a_part_that_is_started_again_is_told_of_once(broker: Broker) -> None:
    with Operation.start("album", id="p", settings=broker.settings) as album:
        for _ in range(2):
            part = album.child("photo", id="a")
            assert part.flush()
        assert [note["operation"] for note in broker.data("p", "child")] == ["a"]
        part.succeed()
        assert part.flush()


@pytest.mark.parametrize("fate", ["never", "ended"])
def test_a_parent_that_is_not_there_is_a_label(broker: Broker, fate: str) -> None:
    if fate == "ended":
        with Operation.start("album", id="p", settings=broker.settings):
            pass
    with Operation.start("photo", id="a", parent="p", settings=broker.settings):
        pass
    assert (broker.show("a").status, broker.show("a").parent) == (Status.SUCCEEDED, "p")


class TestCancelling:
    def test_a_part_is_not_begun_once_the_whole_was_asked_to_stop(self, broker: Broker) -> None:
        Operation.create("album", id="p", settings=broker.settings)
        broker.set_status("p", "running")
        broker.cancel("p", "enough")
        with pytest.raises(Cancelled, match="enough") as raised:
            Operation.start("photo", id="a", parent="p", settings=broker.settings)
        assert (raised.value.operation, raised.value.by) == ("a", "bob")
        assert broker.show("a").status is Status.CANCELLED

    async def test_nor_is_one_of_asyncio(self, broker: Broker) -> None:
        await AsyncOperation.create("album", id="p", settings=broker.settings)
        await asyncio.to_thread(broker.cancel, "p")
        with pytest.raises(Cancelled):
            async with AsyncOperation.start("photo", id="a", parent="p", settings=broker.settings):
                raise AssertionError("it began")
        assert (await asyncio.to_thread(broker.show, "a")).status is Status.CANCELLED

    def test_nor_is_one_created_for_another_to_take_up(self, broker: Broker) -> None:
        with pytest.raises(Cancelled), Operation.start("album", id="p", settings=broker.settings):
            raise Cancelled("p")
        assert Operation.create("photo", id="a", parent="p", settings=broker.settings) == "a"
        assert broker.show("a").status is Status.CANCELLED
        with pytest.raises(OperationEnded):
            Operation.attach("a", settings=broker.settings)

    @pytest.mark.parametrize("attempt", range(3))
    def test_none_that_is_begun_meanwhile_is_lost(self, broker: Broker, attempt: int) -> None:
        cancelling, begun = threading.Event(), []

        def crop(number: int) -> None:
            id = f"{attempt}-{number}"
            begun.append(id)
            with Operation.start("photo", id=id, parent="p", settings=broker.settings) as op:
                cancelling.wait(10)
                wait_until(lambda: op.cancelled, f"{id} hears of the cancel")
                op.raise_if_cancelled()

        with Operation.start("album", id="p", settings=broker.settings), ThreadPoolExecutor(40) as pool:
            parts = [pool.submit(crop, number) for number in range(40)]
            wait_until(lambda: len(begun) > 5 * attempt, "some have begun")
            broker.cancel("p", "enough")
            cancelling.set()
        for part in parts:
            assert isinstance(part.exception(), Cancelled), repr(part.exception())
        assert {broker.show(id).status for id in begun} == {Status.CANCELLED}

    @pytest.mark.parametrize("when", ["asked twice", "answered late", "created late"])
    def test_a_cancel_ends_one_that_is_just_being_begun(
        self, broker: Broker, monkeypatch: pytest.MonkeyPatch, when: str
    ) -> None:
        carrier = link_to(broker.settings).carrier
        create, creations = carrier.create, 0

        def created_slowly(operation: str, *how: Any, **options: Any) -> Created:
            nonlocal creations
            creations += 1
            if creations == 1 and when == "created late":
                raise StorageUnavailable("not now")
            created = create(operation, *how, **options)
            broker.cancel("p", "enough")
            if creations == 1 and when == "answered late":
                raise StorageUnavailable("the answer does not come")
            return create(operation, *how, **options) if when == "asked twice" else created

        def crop() -> None:
            with Operation.start("photo", id="a", parent="p", settings=broker.settings) as op:
                wait_until(lambda: op.cancelled, "it hears")
                op.raise_if_cancelled()

        with Operation.start("album", id="p", settings=broker.settings) as album:
            assert album.flush()
            monkeypatch.setattr(carrier, "create", created_slowly)
            with pytest.raises(Cancelled):
                crop()
            monkeypatch.undo()
            with pytest.raises(OperationEnded):  # other work, which begins after the cancel
                Operation.start("photo", id="a", parent="p", settings=broker.settings)
        assert broker.show("a").status is Status.CANCELLED


def test_a_parent_of_which_redis_lost_events_is_told_of_its_new_children_again(broker: Broker) -> None:
    with Operation.start("import", id="parent", interval_s=0.01, settings=broker.settings) as op:
        op.log("before")
        assert op.flush(60)
        snapshot = KEYS.operation("parent").snapshot
        kept = broker.redis.hgetall(snapshot)
        Operation.create("part", id="child", parent="parent", settings=broker.settings)
        op.log("lost")
        assert op.flush(60)
        assert children_of(broker, "parent") == 1
        with broker.redis.pipeline(transaction=True) as both:  # as a failover does, where the child is in another lane
            both.delete(snapshot)
            both.hset(snapshot, mapping=kept)
            both.execute()
        assert children_of(broker, "parent") == 0
        op.log("after")
        assert op.flush(60)
        wait_until(lambda: children_of(broker, "parent") == 1, "it is told again")
    assert broker.data("parent", "child")[-1]["operation"] == "child"


def children_of(broker: Broker, parent: str) -> int:
    children = broker.show(parent).children
    return 0 if children is None else children.total
