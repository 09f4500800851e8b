"""The npm package `eventsource` with tickets: issued by one replica, accepted by another."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from tests.e2e.conftest import StartReplica
from tests.e2e.harness import OPS, REQUEST_S
from tests.e2e.test_eventsource import Script, envelopes
from tests.servers import ApiReplica, RealRedis

SECRET = "what replicas and tokens of these tests share"


def bearing(**claims: Any) -> dict[str, str]:
    told = {"sub": "alice", "scope": "read publish create", "exp": time.time() + 60} | claims
    return {"Authorization": f"Bearer {jwt.encode(told, SECRET)}"}


@pytest.fixture
def replicas(start_replica: StartReplica, e2e_redis: RealRedis) -> list[ApiReplica]:
    settings = {"auth": "jwt", "jwt_key": SECRET, "jwt_leeway_s": 0}
    return [start_replica(e2e_redis.url, **settings) for _ in range(2)]


@pytest.fixture
def http(replicas: list[ApiReplica]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=replicas[0].url, timeout=REQUEST_S) as client:
        yield client


def publish(http: httpx.Client, *messages: str) -> None:
    body = [{"type": "log", "data": {"message": message}} for message in messages]
    http.post(f"{OPS}/ticketed/events", json=body, headers=bearing()).raise_for_status()


def test_a_page_follows_with_tickets_and_misses_nothing(
    http: httpx.Client, replicas: list[ApiReplica], tmp_path: Path
) -> None:
    http.post(OPS, json={"id": "ticketed"}, headers=bearing()).raise_for_status()

    def address(**claims: Any) -> str:
        answer = http.post(f"{OPS}/ticketed/tickets", headers=bearing(**claims)).raise_for_status()
        return f"{replicas[1].url}{OPS}/ticketed/stream?ticket={answer.json()['ticket']}"

    # The token expires, and with it the stream and the ticket. EventSource reconnects once, and stops.
    first = address(exp=int(time.time()) + 10)
    with Script(tmp_path / "first", "follow_stream.mjs", f"{first}&from=start") as client:
        publish(http, "one", "two")
        lines = client.finished()
    assert [line["envelope"] for line in lines if line.get("event") == "reconnect"] == [{"reason": "expired"}]
    assert lines[-1] == {"closed": 401}
    publish(http, "three")
    position = [line for line in lines if line.get("id")][-1]["id"]
    with Script(tmp_path / "second", "follow_stream.mjs", f"{address()}&last_event_id={position}") as client:
        end = {"type": "end", "data": {"status": "succeeded"}}
        http.post(f"{OPS}/ticketed/events", json=end, headers=bearing()).raise_for_status()
        seen = envelopes(lines) + envelopes(client.finished())
    history = http.get(f"{OPS}/ticketed/events", headers=bearing()).json()["events"]
    assert seen == history
    for replica in replicas:
        assert "eyJ" not in replica.output()  # the first characters of tokens and tickets
