"""Servers and workers behind a Sentinel set: they follow the master, at once when sentinels announce another one."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.e2e.harness import OPS, Api, counting
from tests.forked import Forked
from tests.servers import DEADLINE_S, ApiReplica, wait_until
from tests.topologies.sentinel import SentinelSet
from tests.topologies.topology import do
from tests.workers.harness import finished, worker

SETTINGS = {"probe_interval_s": 0.3, "redis_timeout_s": 5}


@pytest.fixture
def topology(tmp_path: Path) -> Iterator[SentinelSet]:
    with SentinelSet(tmp_path / "set") as topology:
        yield topology


class Publisher:
    """Publishes numbered lines over HTTP, and keeps which of them were acknowledged, and how long none was."""

    def __init__(self, api: Api, operation: str) -> None:
        self._url = f"{api.url}{OPS}/{operation}/events"
        self.acknowledged: list[str] = []
        self.longest_gap_s = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        last = time.monotonic()
        with httpx.Client(timeout=DEADLINE_S) as client:
            for number in count():
                message = f"line {number}"
                body = {"type": "log", "data": {"message": message}}
                if client.post(self._url, json=body).status_code == 200:
                    self.acknowledged.append(message)
                    now = time.monotonic()
                    self.longest_gap_s, last = max(self.longest_gap_s, now - last), now
                if self._ended.wait(0.01):
                    return

    def goes_on(self) -> None:
        seen = len(self.acknowledged)
        wait_until(lambda: len(self.acknowledged) > seen + 10, "events are acknowledged")

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def __enter__(self) -> "Publisher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def lines(api: Api, operation: str) -> list[str]:
    return [event["data"]["message"] for event in api.history(operation) if event["type"] == "log"]


def exists(api: Api, operation: str) -> bool:
    return api.http.get(f"{OPS}/{operation}").status_code == 200


def assert_in_order(told: list[str]) -> None:
    numbers = [int(line.removeprefix("line ")) for line in told]
    assert numbers == sorted(set(numbers))


def ended(process: Forked) -> None:
    """Have a worker that counts come to its end."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    finished(process)


def test_all_follow_the_master_and_go_on_without_sentinels(
    topology: SentinelSet, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    for server in topology.servers[1:]:
        do(server, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with ExitStack() as stack:
        replica = stack.enter_context(ApiReplica(topology.url, tmp_path / "api.log", **SETTINGS))
        api = stack.enter_context(Api(replica.url))
        api.create(id="published")
        process = stack.enter_context(worker(topology.url, counting("worked")))
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        publisher = stack.enter_context(Publisher(api, "published"))

        def all_go_on() -> None:
            publisher.goes_on()
            stored = api.show("worked")["events"]
            wait_until(lambda: api.show("worked")["events"] > stored + 5, "the worker goes on")

        for planned in (True, False):
            all_go_on()
            topology.await_replicas(1)
            publisher.longest_gap_s = 0
            topology.failover(planned=planned)
            all_go_on()
            record_property(f"gap_s, {'planned' if planned else 'killed'}", publisher.longest_gap_s)
        wait_until(lambda: "redis_failovers_total 2.0\n" in api.http.get("/metrics").text, "both are counted")
        last = f"the master 127.0.0.1:{topology.master.port} of redis+sentinel://"
        wait_until(lambda: last in replica.output(), "it is told that it would evict keys")

        hung, other, last = topology.sentinels
        for sentinel in (hung, other):  # so there is no quorum
            topology.stop(sentinel)
        with worker(topology.url, counting("late")) as late:
            assert late.stdout is not None
            assert late.stdout.readline() == "started\n"
            wait_until(lambda: exists(api, "late"), "its operation is there")
            wait_until(lambda: api.show("late")["events"] > 5, "it reports")
            topology.kill(last)
            all_go_on()
            ended(late)
        ended(process)
        publisher.end()
        assert publisher.acknowledged[-1] == lines(api, "published")[-1]
        shown = api.show("worked")
        assert shown["status"] == "succeeded"
        # A worker sends again what was lost. What others published over HTTP may be lost, as nobody has it any more.
        assert lines(api, "worked") == [f"line {number}" for number in range(shown["result"]["lines"])]
        told = lines(api, "published")
        assert_in_order(told)
        record_property("lost, published", len(set(publisher.acknowledged) - set(told)))
