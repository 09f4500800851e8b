"""Commands that show replicas and streams and end them, through a server and in Redis itself."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from progress_cli.caller import caller
from tests.api.proofs import AUDIENCE, SECRET, bearing, token
from tests.cli.conftest import Shell
from tests.servers import ApiReplica, RealRedis, wait_until


@pytest.fixture(scope="module")
def redis_of_replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with RealRedis(tmp_path_factory.mktemp("operators") / "redis") as redis:
        yield redis


@pytest.fixture(scope="module")
def replica(redis_of_replica: RealRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiReplica]:
    log = tmp_path_factory.mktemp("operators") / "log"
    settings = {"auth": "jwt", "jwt_key": SECRET, "jwt_audience": AUDIENCE}
    with ApiReplica(redis_of_replica.url, log, **settings) as replica:
        yield replica


@pytest.fixture(params=["http", "redis"])
def shell(request: pytest.FixtureRequest, replica: ApiReplica, redis_of_replica: RealRedis, tmp_path: Path) -> Shell:
    if request.param == "redis":
        return Shell(tmp_path, redis_url=redis_of_replica.url)
    root = token("root", grants=[{"actions": ["admin"]}], exp=4e9)
    return Shell(tmp_path, url=replica.url, token=root)


@contextmanager
def watching(replica: ApiReplica, operation: str) -> Iterator[tuple[str, list[str]]]:
    """Follow an operation as alice; yield the connection's name, and its lines as they come."""
    lines: list[str] = []
    proof = bearing(token("alice", "read", exp=4e9))
    with httpx.stream("GET", f"{replica.url}/v1/operations/{operation}/stream", headers=proof) as answer:
        assert answer.status_code == 200
        reading = threading.Thread(target=lambda: lines.extend(answer.iter_lines()))
        reading.start()
        yield answer.headers["progress-connection"], lines
        reading.join()


def test_replicas_and_streams_are_listed_and_a_stream_is_ended(shell: Shell, replica: ApiReplica) -> None:
    wait_until(lambda: "ready" in shell.says("replicas"), "the replica has told that it is ready")
    [state] = json.loads(shell.says("replicas", "-o", "json"))
    assert state["address"] == f"127.0.0.1:{replica.port}"
    assert shell.says("replicas", "-o", "name") == f"{state['id']}\n"
    httpx.post(f"{replica.url}/v1/operations", json={"id": "a"}, headers=bearing(token("alice", "create", exp=4e9)))
    with watching(replica, "a") as (name, lines):
        assert name in shell.says("streams", "--operation", "a", "-o", "wide")
        assert shell.says("streams", "--principal", "bob", "-o", "name") == ""
        assert shell.says("streams", "--principal", "alice", "-o", "name") == f"{name}\n"
        said = shell.says("kick", name)
        assert said.startswith(f"{name} of alice from 127.0.0.1 is ended, it followed a")
    assert any("kicked" in line for line in lines)
    [entry] = json.loads(shell.says("audit", "--action", "kick", "--target", name, "-o", "json"))
    assert entry["detail"] == "of alice at 127.0.0.1, following a"
    assert entry["who"] == ("root" if "PROGRESS_URL" in shell.env else caller())
    assert f"there is no stream {name}" in shell.fails(4, "kick", name)
    assert "is not the name of a connection" in shell.fails(2, "kick", "alice")
