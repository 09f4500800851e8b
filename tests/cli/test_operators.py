"""Commands that show replicas and streams and end them, through a server and in Redis itself."""

import json
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from progress_broker.model.operation import Status
from progress_cli.caller import caller
from tests.api.proofs import AUDIENCE, SECRET, bearing, token
from tests.cli.conftest import Shell
from tests.servers import DEADLINE_S, ApiReplica, RealRedis, wait_until


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


def test_figures_workers_and_what_takes_room_are_shown(shell: Shell, replica: ApiReplica, tmp_path: Path) -> None:
    worker = bearing(token("worker", "create publish", exp=4e9))
    events = f"{replica.url}/v1/operations/w/events"
    httpx.post(f"{replica.url}/v1/operations", json={"id": "w", "kind": "import", "lease_s": 600}, headers=worker)
    httpx.post(events, json={"type": "status", "data": {"status": "running", "worker": "box-1"}}, headers=worker)
    httpx.post(events, json={"type": "log", "data": {"message": "m"}}, headers=worker)
    stats = json.loads(shell.says("stats", "-o", "json"))[0]
    assert stats["counts"]["operations"].keys() == set(Status)
    assert sum(stats["counts"]["operations"].values()) >= 1
    assert stats["redis"][0]["used_bytes"] > 0
    assert stats["replicas"] == stats["ready"] == 1

    def is_busy() -> bool:
        httpx.post(events, json={"type": "log", "data": {"message": "m"}}, headers=worker)
        shown = shell.says("top", "-n", "1")
        assert "REPLICA" in shown
        assert "~" not in shown  # the broker's own
        return re.search(r"^w +\d", shown.partition("OPERATION  ")[2], re.MULTILINE) is not None

    wait_until(is_busy, "the operation is among the busiest")
    workers = json.loads(shell.says("workers", "-o", "json"))
    assert sum(each["operations"] for each in workers) == stats["counts"]["operations"]["running"]
    done = shell.run("storage", "-o", "json")
    shares = {(each["kind"], each["status"]): each for each in json.loads(done.stdout)}
    [share] = [share for (kind, _), share in shares.items() if kind == "import"]
    assert share["operations"] == 1
    assert share["events"] >= 2
    assert share["bytes"] > 100
    assert "long: " in done.stderr
    through_server = "PROGRESS_URL" in shell.env
    if through_server:
        assert "set PROGRESS_REDIS_URL" in shell.fails(5, "storage", "--exact")
    else:
        exact = json.loads(shell.run("storage", "--exact", "-o", "json").stdout)
        assert sum(each["operations"] for each in exact) == sum(stats["counts"]["operations"].values())
        assert all(each["bytes"] > 100 for each in exact)
    folder = tmp_path / "collected"
    assert f"{10 if through_server else 9} files" in shell.says("debug", str(folder))
    assert {"check", "level", "found"} <= json.loads((folder / "doctor.json").read_bytes())[0].keys()
    if through_server:
        assert "progress_broker_streams_max" in (folder / "metrics.txt").read_text()
        assert {"time", "level", "message"} <= json.loads((folder / "log.json").read_bytes())[0].keys()
    else:
        assert json.loads((folder / "info.json").read_bytes())[0]["redis_version"]
    assert json.loads((folder / "stats.json").read_bytes())["replicas"] == 1
    assert not any(SECRET in file.read_text() for file in folder.iterdir())
    assert "does not exist" in shell.fails(2, "debug", str(folder))


def test_the_log_is_followed_through_a_server_only(shell: Shell) -> None:
    if "PROGRESS_URL" not in shell.env:
        assert "Redis has none" in shell.fails(5, "monitor")
        return
    shell.run("kick", "00000000-1")
    said = shell.says("monitor", "--logger", "progress_broker.audit", "--last", "1", "-n", "1")
    assert "INFO: progress_broker.audit: kick by root: 00000000-1 not-found" in said


@pytest.mark.parametrize("command", ["stats", "streams"])
def test_it_is_shown_again_until_ctrl_c(shell: Shell, command: str) -> None:
    with shell.open(command, "-w") as showing:
        assert showing.stdout is not None
        first_words = (line.split()[0] for line in showing.stdout)
        assert next(first_words) in first_words  # its title comes again
        showing.send_signal(signal.SIGINT)
        assert showing.wait(DEADLINE_S) == 130


def test_it_is_shown_again_when_redis_is_back(tmp_path: Path) -> None:
    with RealRedis(tmp_path / "redis") as redis:
        shell = Shell(tmp_path, redis_url=redis.url)
        with shell.open("stats", "--watch") as showing:
            assert showing.stdout is not None
            assert showing.stderr is not None
            assert showing.stdout.readline().startswith(b"OPERATIONS")
            redis.stop(signal.SIGKILL)
            assert b"Redis can't be reached" in showing.stderr.readline()
            redis.start()
            titles = (line for line in showing.stdout if line.startswith(b"OPERATIONS"))
            assert next(titles)  # of the time before, or of now
            assert next(titles)
            showing.send_signal(signal.SIGINT)
            assert showing.wait(DEADLINE_S) == 130
        assert "can't be reached" in shell.run("stats", "-w", "--redis-url", "redis://127.0.0.1:1").stderr
