"""`watch` goes on after whatever ends a stream, and gives up on what does not come back."""

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest

from progress_client import Client, End, Log, ServerUnavailable, Snapshot, StorageUnavailable
from progress_client.over_http.event_stream import EventStreamReader
from tests.conftest import make_settings
from tests.servers import DEADLINE_S, ApiReplica, RealRedis


@pytest.fixture
def restless(redis_url: str, tmp_path: Path) -> Iterator[ApiReplica]:
    """A server that sends its clients away after a moment, and has room for few."""
    settings = {"stream_max_age_s": 0.2, "retry_ms": 50, "max_streams": 2}
    with ApiReplica(redis_url, tmp_path / "log", **settings) as replica:
        yield replica


def times_sent_away(server: ApiReplica) -> float:
    told = httpx.get(f"{server.url}/metrics", timeout=DEADLINE_S).text
    return sum(float(line.rpartition(" ")[2]) for line in told.splitlines() if "max-age" in line)


def test_it_comes_back_when_it_is_sent_away(restless: ApiReplica) -> None:
    with Client(restless.url) as client:
        client.create(id="a")
        events = client.watch("a", types=["log"])
        assert isinstance(next(events), Snapshot)
        end = time.monotonic() + DEADLINE_S
        for number in count():
            client.publish("a", "log", {"message": str(number)})
            event = next(events)
            assert isinstance(event, Log)
            assert event.message == str(number)
            if times_sent_away(restless) > 2:
                break
            assert time.monotonic() < end, "it is hardly ever sent away"
        client.publish("a", "end", {"status": "succeeded"})
        assert [type(event) for event in events] == [End]


def test_it_waits_for_room(restless: ApiReplica) -> None:
    with Client(restless.url) as client:
        for name in ("a", "b", "c", "d"):
            client.create(id=name)
        watching = [client.watch(name) for name in ("a", "b", "c", "d")]
        for name in ("a", "b", "c", "d"):
            client.publish(name, "end", {"status": "succeeded"})
        for events in watching:  # the server has room for two: the others are rejected, and come back
            assert isinstance(list(events)[-1], End)


def test_it_gives_up_on_a_server_that_stays_away(redis_url: str, tmp_path: Path) -> None:
    with ApiReplica(redis_url, tmp_path / "log") as server, Client(server.url, patience_s=0.3) as client:
        client.create(id="a")
        events = client.watch("a")
        snapshot = next(events)
        server.stop(9)
        with pytest.raises(ServerUnavailable):
            list(events)
        server.start().await_ready()
        client.publish("a", "end", {"status": "succeeded"})
        assert isinstance(list(client.watch("a", after=snapshot.position))[-1], End)


def test_it_gives_up_on_a_redis_that_stays_away(tmp_path: Path) -> None:
    redis = RealRedis(tmp_path / "redis", keep=True)
    with redis, Client(settings=make_settings(redis_url=redis.url), patience_s=0.3) as client:
        client.create(id="a")
        events = client.watch("a")
        next(events)
        redis.stop()
        with pytest.raises(StorageUnavailable):
            list(events)
        redis.start()
        assert client.get("a").id == "a"


def test_a_stream_is_read_however_it_is_cut() -> None:
    stream = (
        b'retry: 1500\n: connected\nid: 1-0\nevent: log\ndata: {"a":1}\n\n: ping\n'
        b"event: ping\r\ndata: {}\r\n\r\n\nid: 2-0\nevent: end\ndata: x\ndata: y\n\nid: 3-0\n"
    )
    whole = list(EventStreamReader().feed(stream))
    assert [tuple(message) for message in whole] == [
        ("1-0", "log", b'{"a":1}', 1500),
        ("", "ping", b"{}", 1500),
        ("2-0", "end", b"x\ny", 1500),
    ]
    for at in range(len(stream)):
        reader = EventStreamReader()
        assert [*reader.feed(stream[:at]), *reader.feed(stream[at:])] == whole
