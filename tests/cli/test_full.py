"""A full Redis: operators look at what is there and make room, in Redis itself and through a server, or learn what to
do."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.cli.conftest import Shell
from tests.cli.test_many import make
from tests.servers import ApiReplica, RealRedis, wait_until

MIB = 1 << 20


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRedis]:
    with RealRedis(tmp_path_factory.mktemp("full")) as server:
        yield server


@pytest.fixture(scope="module")
def server(own_redis: RealRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiReplica]:
    with ApiReplica(own_redis.url, tmp_path_factory.mktemp("full") / "log") as replica:
        yield replica


@pytest.fixture(params=["http", "redis"])
def shell(request: pytest.FixtureRequest, own_redis: RealRedis, server: ApiReplica, tmp_path: Path) -> Shell:
    return Shell(tmp_path, **{"url": server.url} if request.param == "http" else {"redis_url": own_redis.url})


@contextmanager
def full(own_redis: RealRedis, room: int | None = None) -> Iterator[None]:
    """Make it full: as deleting `room` bytes mends, or so that nothing does."""
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("maxmemory", 1 if room is None else client.info("memory")["used_memory"] - room)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


def test_operators_look_and_make_room(shell: Shell, own_redis: RealRedis, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id
    kind, running = f"full-{name}", f"running-{name}"
    make(shell, running, kind=kind)
    make(shell, *(f"{name}-{number}" for number in range(5)), kind=kind, ended=True)
    with full(own_redis):
        progress = "--type", "progress", "--data", '{"percent": 2}'
        assert "delete operations (`progress-broker purge`)" in shell.fails(5, "publish", running, *progress)
        assert len(shell.says("ls", "--kind", kind, "-o", "name").split()) == 6
        assert json.loads(shell.says("ls", "--kind", kind, "--counts", "--json"))["counts"] == {
            "failed": 5,
            "running": 1,
        }
        for words in (
            ("show", running),
            ("failures",),
            ("stats",),
            ("workers",),
            ("replicas",),
            ("audit",),
            ("retention",),
        ):
            shell.says(*words)
        assert "Ended operations are kept for 2h" in shell.says("retention", "--ended", "2h")
        assert shell.says("retain", f"{name}-0", "--pin") == "1 kept anew\n"
        assert shell.says("cancel", running) == f"{running}: cancelling\n"
        assert "revoked" in shell.says("auth", "revoke", "--sub", "eve")
        assert "limited" in shell.says("limits", "set", "bob", "--streams", "2")
        found = shell.run("doctor", "-o", "json")
        assert found.returncode == 2
        faults = [it for it in json.loads(found.stdout) if it["level"] == "fault"]
        assert any("purge" in it["fix"] for it in faults), faults
        assert shell.says("rm", f"{name}-1") == "1 deleted\n"
        assert shell.says("purge", "--kind", kind, "--keep", "2", "--yes") == "2 deleted\n"
        assert shell.says("purge", "--kind", kind, "--yes") == "2 deleted\n"
        assert shell.says("rm", running, "--force") == "1 deleted\n"
        assert shell.says("ls", "--kind", kind, "-o", "name") == ""


def test_a_purge_makes_room_for_its_job(own_redis: RealRedis, server: ApiReplica, tmp_path: Path) -> None:
    shell = Shell(tmp_path, url=server.url)
    lines = "".join(json.dumps({"type": "log", "data": {"message": "x" * 50_000}}) + "\n" for _ in range(60))
    make(shell, "large", kind="large")
    shell.says("publish", "large", "-", stdin=lines.encode())
    shell.says("publish", "large", "--type", "end", "--data", '{"status": "succeeded"}')
    asked = {"query": {"kind": "large"}}

    def post(verb: str) -> httpx.Response:
        return httpx.post(f"{server.url}/v1/operations:{verb}", json=asked, timeout=60)

    with full(own_redis, room=MIB):
        answer = post("purge")
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = {}

        def ends() -> bool:
            job.update(httpx.get(f"{server.url}{answer.headers['location']}").json())
            return bool(job["done"])

        wait_until(ends, "the job ends")
        assert (job["status"], job["result"]) == ("succeeded", {"changed": 1, "skipped": 0, "failed": 0})
    make(shell, "small", kind="large", ended=True)
    make(shell, "open", kind="large")
    with full(own_redis):
        refused = post("cancel")
        assert refused.status_code == 507
        assert "progress-broker purge" in refused.json()["detail"]
        refused = post("purge")
        assert refused.status_code == 507
        assert refused.json()["detail"].startswith("deleted 1 of the operations, but Redis is still too full for a job")
        assert httpx.get(f"{server.url}/v1/operations/small").status_code == 410
    entries = httpx.get(f"{server.url}/v1/audit", params={"action": "delete"}).json()["entries"]
    assert {"large"} <= {entry["target"] for entry in entries if entry.get("detail") == job["id"]}
