"""Unsuitable servers at the Redis address are rejected by name, and temporary states are waited for."""

import json
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as library

from progress_broker.errors import SetupError
from progress_workers import Operation, StorageUnavailable
from tests.cli.conftest import Shell, ready
from tests.conftest import make_settings
from tests.servers import Process, RealRedis, Sentinel, free_port, wait_until
from tests.workers.harness import Broker


@pytest.fixture
def master(tmp_path: Path) -> Iterator[RealRedis]:
    with RealRedis(tmp_path / "master", port=free_port()) as server:
        yield server


@pytest.fixture
def replica(tmp_path: Path, master: RealRedis) -> Iterator[RealRedis]:
    host_and_port = master.url.removeprefix("redis://").replace(":", " ")
    with RealRedis(tmp_path / "replica", port=free_port(), options=("--replicaof", host_and_port)) as server:
        yield server


@pytest.fixture(params=["cluster", "no cluster", "sentinel", "no sentinel"])
def never_right(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """An address that can never be used, and the error for it."""
    folder = tmp_path / "odd"
    if request.param == "cluster":
        with RealRedis(folder, port=free_port(), options=("--cluster-enabled", "yes")) as server:
            yield server.url, f"{server.url} is a node of a Redis Cluster: write redis+cluster://… instead of redis://…"
        return
    master = request.getfixturevalue("master")
    if request.param == "no cluster":
        there = master.url.replace("redis://", "redis+cluster://")
        yield there, f"{there} is not a node of a Redis Cluster: write redis://… instead of redis+cluster://…"
    elif request.param == "sentinel":
        with Sentinel(folder, master) as sentinel:
            there = sentinel.url.replace("redis://", "redis+sentinel://")
            yield sentinel.url, f"{sentinel.url} is a Redis Sentinel: write {there}/SERVICE in PROGRESS_REDIS_URL"
    else:
        there = master.url.removeprefix("redis://")
        yield f"redis+sentinel://{there}/main", f"{there} is not a Redis Sentinel: write redis://{there}"


COMMANDS = [("ls",), ("show", "a"), ("tail", "a"), ("publish", "a", "--create")]


def test_a_kind_that_never_serves_is_rejected_by_its_name(lonely: Shell, never_right: tuple[str, str]) -> None:
    url, said = never_right
    for database in [""] if url.startswith("redis+cluster") else ["", "/3"]:  # a Cluster has no databases
        lonely.env["PROGRESS_REDIS_URL"] = url + database
        for command in (("serve", "--port", "0"), *COMMANDS):
            assert lonely.fails(5, *command).startswith(said), command
    with pytest.raises(StorageUnavailable, match=re.escape(said)):
        Operation.start("import", settings=make_settings(redis_url=url), required=True)


def test_a_replica_is_rejected_by_commands_and_waited_for_by_servers(lonely: Shell, replica: RealRedis) -> None:
    """A read-only server may be promoted at any moment."""
    lonely.env["PROGRESS_REDIS_URL"] = replica.url
    wait_until(lambda: linked(replica), "it follows its master")
    for command in COMMANDS:
        line = lonely.fails(5, *command)
        assert re.match(rf"{replica.url} is a replica of 127.0.0.1:\d+: progress-broker needs the master", line)
    with pytest.raises(StorageUnavailable, match="is a replica of"):
        Operation.start("import", settings=Broker(replica.url).settings, required=True)
    with lonely.process("serve", "--port", "0") as server:
        url = ready(server)
        wait_until(lambda: get(f"{url}/readyz")[1].get("reason") == "redis replica", "it has asked")
        status, body = get(f"{url}/readyz")
        assert (status, body["reason"]) == (503, "redis replica")
        assert "is a replica of" in body["detail"]
        assert "is a replica of" in server.output()
        with library.Redis.from_url(replica.url) as client:
            client.execute_command("REPLICAOF", "NO", "ONE")
        wait_until(lambda: get(f"{url}/readyz")[0] == 200, "it serves once that is the master")
        assert server.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (
            "1",
            "this Redis has data in schema 1 under the prefix 'pb'. This program is newer and supports only"
            " schema 2: use",
        ),
        (
            "3",
            "this Redis has data in schema 3 under the prefix 'pb'. This program is older and supports only"
            " schema 2: upgrade this program",
        ),
    ],
)
def test_another_schema_is_rejected_by_servers_commands_and_workers_and_left_as_it_is(
    lonely: Shell, master: RealRedis, schema: str, said: str
) -> None:
    """Of another schema all may differ but the field that names it."""
    with library.Redis.from_url(master.url) as client:
        client.hset("pb:meta", "schema", schema)
        lonely.env["PROGRESS_REDIS_URL"] = master.url
        for command in (("serve", "--port", "0"), *COMMANDS):
            assert lonely.fails(5, *command).startswith(said), command
        with pytest.raises(SetupError, match=re.escape(said)):
            Operation.start("import", settings=Broker(master.url).settings, required=True)
        assert client.hgetall("pb:meta") == {b"schema": schema.encode()}
        assert client.keys() == [b"pb:meta"]


def linked(replica: RealRedis) -> bool:
    with library.Redis.from_url(replica.url) as client:
        return bool(client.info("replication")["master_link_status"] == "up")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_server_starts_while_redis_is_away(lonely: Shell, tmp_path: Path, processes: str) -> None:
    redis = RealRedis(tmp_path / "late", port=free_port())
    lonely.env |= {"PROGRESS_REDIS_URL": redis.url, "PROGRESS_PROCESSES": processes}
    with lonely.process("serve", "--port", "0") as server:
        url = ready(server)
        assert get(f"{url}/livez")[0] == 200
        status, body = get(f"{url}/readyz")
        assert (status, body["reason"]) == (503, "redis away")
        assert "Connection refused" in body["detail"]
        for path in ("/v1/operations", "/v1/operations/a", "/v1/operations/a/stream", "/metrics"):
            status, body = get(url + path)
            assert (status, body["type"]) == (503, "storage-unavailable"), path
        for path in ("/v1/operations/a/stream", "/v1/stream?operation=a"):
            request = urllib.request.Request(url + path, headers={"Accept": "text/event-stream"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                told = answer.read()
            assert told.startswith(b"retry: ")
            assert b'event: reconnect\ndata: {"reason":"storage-unavailable"}' in told
        with redis:
            wait_until(lambda: get(f"{url}/readyz")[0] == 200, "it is ready when Redis is there")
            lonely.says("publish", "a", "--create")
            # The other of the two processes may be a moment later.
            wait_until(lambda: get(f"{url}/v1/operations/a")[1].get("id") == "a", "it serves")
            assert server.stop(signal.SIGTERM) == 0
        assert "Traceback" not in server.output()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_what_is_wrong_for_good_ends_a_server_also_when_it_comes_out_late(
    lonely: Shell, tmp_path: Path, processes: str
) -> None:
    redis = RealRedis(tmp_path / "late", port=free_port(), options=("--requirepass", "another"))
    url = redis.url.replace("//", "//:wrong@")
    lonely.env |= {"PROGRESS_REDIS_URL": url, "PROGRESS_PROCESSES": processes}
    with lonely.process("serve", "--port", "0") as server:
        ready(server)
        redis_started(redis)
        try:
            assert server.popen is not None
            assert server.popen.wait(120) == 5
        finally:
            redis.stop(signal.SIGKILL)
        [line] = [line for line in server.output().splitlines() if line.startswith("progress-broker: ")]
        assert line.startswith("progress-broker: Redis rejected the user or password")
        assert "Traceback" not in server.output()


def redis_started(redis: RealRedis) -> None:
    """Start one that requires a password."""
    Process.start(redis)
    wait_until(lambda: "Ready to accept connections" in redis.output(), "it starts")


def test_a_server_told_to_stop_while_it_waits_stops(lonely: Shell) -> None:
    lonely.env["PROGRESS_REDIS_URL"] = f"redis://127.0.0.1:{free_port()}"
    for number in (signal.SIGTERM, signal.SIGINT):
        with lonely.process("serve", "--port", "0") as server:
            ready(server)
            assert server.stop(number) == 0
            assert "Traceback" not in server.output()


def test_who_only_reads_needs_no_writes(lonely: Shell, master: RealRedis) -> None:
    lonely.env["PROGRESS_REDIS_URL"] = master.url
    lonely.says("publish", "a", "--create")
    with library.Redis.from_url(master.url) as client:
        client.config_set("maxmemory", 1)
        assert [each["id"] for each in lonely.lines("ls")] == ["a"]
        assert '"id":"a"' in lonely.says("show", "a", "--json")
        with lonely.process("serve", "--port", "0") as server:
            url = ready(server)
            wait_until(lambda: get(f"{url}/v1/operations/a")[1].get("id") == "a", "it serves")


def get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as rejected:
        with rejected:
            return rejected.code, json.load(rejected)
