"""Many operations on one stream, while replicas are killed and connections aborted: each event once, in order."""

import itertools
import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import orjson

from tests.e2e.conftest import StartReplica
from tests.e2e.harness import Api
from tests.servers import ApiReplica, RealRedis

OPERATIONS = 40
ROUNDS = 40


class Follower:
    """A client that reconnects with its cursor, and reports errors in the events it receives."""

    def __init__(self, query: dict[str, Any]) -> None:
        self.query = query
        self.cursor: str | None = None
        self.next: dict[str, int] = {}
        self.ended: set[str] = set()
        self.connections = 0

    def follow(self, url: str, most: int) -> None:
        """Receive a number of events from a replica, or stop when the connection is lost."""
        headers = {} if self.cursor is None else {"Last-Event-ID": self.cursor}
        self.connections += 1
        try:
            with httpx.stream("GET", f"{url}/v1/stream", params=self.query, headers=headers, timeout=60) as answer:
                assert answer.status_code == 200, answer.status_code
                for event in itertools.islice(self._events(answer.iter_lines()), most):
                    self._told(event)
                    if len(self.ended) == OPERATIONS:
                        return
        except httpx.TransportError:
            return

    def _events(self, lines: Iterator[str]) -> Iterator[dict[str, Any]]:
        fields: dict[str, str] = {}
        for line in lines:
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
                continue
            if "data" in fields:
                event: dict[str, Any] = orjson.loads(fields["data"])
                self.cursor = fields.get("id", self.cursor)
                if "n" in event and fields["event"] != "bookmark":
                    yield event
            fields = {}

    def _told(self, event: dict[str, Any]) -> None:
        name, n = event["operation"], event["n"]
        if event["type"] == "snapshot":
            assert "reset" not in event, event
            self.next[name] = n + 1 - event["data"]["done"]
            return
        assert n == self.next[name], f"event {n} of {name} comes where {self.next[name]} should"
        self.next[name] = n + 1
        if event["type"] == "end":
            self.ended.add(name)


@contextmanager
def at_work(replica: ApiReplica, names: list[str]) -> Iterator[None]:
    """Let all operations report in the background until they end."""

    def work() -> None:
        with Api(replica.url) as api:
            for turn in range(ROUNDS):
                for name in names:
                    if turn == random.Random(name).randrange(10):
                        api.create(id=name, owner="ann")
                    if turn >= 10:
                        api.log(name, f"{turn}")
            for name in names:
                api.finish(name)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def test_cut_connections_and_killed_replicas_lose_and_repeat_nothing(
    e2e_redis: RealRedis, start_replica: StartReplica
) -> None:
    steady, other = start_replica(e2e_redis.url), start_replica(e2e_redis.url)
    names = [f"many-{i}" for i in range(OPERATIONS)]
    chance = random.Random(7)
    follower = Follower({"owner": "ann"})
    with at_work(steady, names):
        while len(follower.ended) < OPERATIONS:
            if follower.connections == 6:
                assert other.popen is not None
                other.popen.kill()
                other = start_replica(e2e_redis.url)
            follower.follow(chance.choice((steady.url, other.url)), chance.randrange(1, 250))
    assert follower.connections > 6
    lengths: dict[str, int] = defaultdict(int)
    with Api(steady.url) as api:
        for name in names:
            lengths[name] = api.show(name)["events"]
    assert follower.next == {name: length + 1 for name, length in lengths.items()}
