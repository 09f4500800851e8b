"""deploy/redis.conf: replicas and workers over TLS, each as a user that may do what it needs and nothing else."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.cli.conftest import Shell
from tests.deploy.files import ROOT
from tests.deploy.proxies import Certificate, replaced
from tests.servers import DEADLINE_S, ApiReplica, Process, free_port, need, wait_until
from tests.workers.harness import finished, python

CONF = (ROOT / "deploy" / "redis.conf").read_text()
USERS = dict(re.findall(r"^user (\w+) on (.*)$", CONF, re.MULTILINE))
SETTINGS = {
    "sweep_interval_s": 0.2,
    "retention_s": 5,
    "worker_lost_after_s": 1,
    "probe_interval_s": 0.5,
    "redis_timeout_s": 5,
}

WORKER = """
    import threading, time
    from progress_workers import Operation

    with Operation.start("import", id="import-1", total=3, tags=["eu"], owner="alice", interval_s=0.05) as op:
        for row in op.track(range(3)):
            with op.stage("parse"):
                op.log(f"line {row}")
        with Operation.start("part", parent="import-1") as part:
            part.advance(1)
        print("working", flush=True)
        while not op.cancelled:
            time.sleep(0.05)
        op.raise_if_cancelled()
"""
LOST = """
    import os
    from progress_workers import Operation

    op = Operation.start("import", id="import-lost", lease_s=1)
    op.__enter__()
    op.flush()
    os._exit(0)
"""


class Guarded(Process):
    """A redis-server with the configuration as it is written, and an operator of ours."""

    def __init__(self, folder: Path, more: str = "", certificate: Certificate | None = None) -> None:
        """`more` is what another file adds."""
        folder.mkdir(exist_ok=True)
        self.certificate = certificate or Certificate(folder / "tls")
        self.port = free_port()
        text = replaced(CONF, "tls-port 6379", f"bind 127.0.0.1\ndir {folder}\ntls-port {self.port}")
        text = replaced(text, "/etc/redis/tls/redis.crt", str(self.certificate.cert))
        text = replaced(text, "/etc/redis/tls/redis.key", str(self.certificate.key))
        text = replaced(text, "/etc/redis/tls/ca.crt", str(self.certificate.cert))
        conf = folder / "redis.conf"
        conf.write_text(f"{text}\nuser admin on >ADMIN-PASSWORD ~* &* +@all\n{more}\n")
        super().__init__([need("redis-server", "redis-server"), str(conf)], folder / "redis.log")

    def url(self, user: str) -> str:
        return f"rediss://{user}:{user.upper()}-PASSWORD@localhost:{self.port}/0?ssl_ca_certs={self.certificate.cert}"

    def client(self, user: str) -> Any:
        return redis.Redis.from_url(self.url(user))

    def __enter__(self) -> "Guarded":
        self.start()
        wait_until(self._answers, "redis-server starts")
        return self

    def _answers(self) -> bool:
        assert self.popen is not None
        if self.popen.poll() is not None and "Bad directive" in self.output():
            pytest.skip("this redis-server is built without TLS")
        assert self.popen.poll() is None, self.output()
        try:
            with self.client("admin") as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with Guarded(tmp_path_factory.mktemp("guarded")) as server:
        yield server


def denied(server: Guarded) -> list[str]:
    """Return what was rejected to anybody, so far."""
    with server.client("admin") as admin:
        return [str(entry) for entry in admin.acl_log()]


def test_replicas_and_workers_need_no_more_than_they_have(guarded: Guarded, folder: Path) -> None:
    with ExitStack() as stack:
        replica = stack.enter_context(ApiReplica(guarded.url("replica"), folder / "api.log", **SETTINGS))
        client = stack.enter_context(httpx.Client(base_url=f"{replica.url}/v1", timeout=60))
        worker = stack.enter_context(python(guarded.url("worker"), WORKER))
        stack.callback(worker.kill)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "working\n"
        shown = client.get("/operations", params={"tag": "eu", "limit": 5})
        assert shown.status_code == 200, shown.text
        assert [each["id"] for each in shown.json()["operations"]] == ["import-1"]
        assert client.get("/operations/import-1", params={"include": "children"}).status_code == 200
        assert client.get("/operations/import-1/events", params={"limit": 2}).status_code == 200
        assert client.post("/operations/import-1/signals", json={"type": "pause"}).is_success
        assert client.post("/operations/import-1/cancel", json={"reason": "enough"}).status_code == 202
        stream = client.get("/operations/import-1/stream", params={"from": "start"}).text
        assert '"status":"cancelled"' in stream
        worker.wait(DEADLINE_S)

        finished(python(guarded.url("worker"), LOST))
        stream = client.get("/operations/import-lost/stream", params={"from": "start"}).text
        assert "worker-lost" in stream

        client.post("/operations", json={"id": "import-2"})
        event = {"type": "progress", "data": {"current": 1}, "producer": "p", "seq": 1}
        for _ in range(2):
            assert client.post("/operations/import-2/events", json=event).status_code == 200
        assert client.delete("/operations/import-2", params={"force": True}).is_success
        assert client.get("/operations/import-2").status_code == 410
        assert client.post("/operations", json={"id": "import-3"}).status_code == 201
        ended = {"type": "end", "data": {"status": "succeeded"}}
        assert client.post("/operations/import-3/events", json=ended).status_code == 200
        revoked = {"claim": "sub", "value": "somebody"}
        assert client.post("/revocations", json=revoked).status_code == 201
        assert len(client.get("/revocations").json()["revocations"]) == 1
        assert client.delete("/revocations", params=revoked).status_code == 204
        wait_until(lambda: client.get("/operations/import-3").status_code == 404, "what has expired is swept")
        assert replica.output().count("NOPERM") == 0
    assert denied(guarded) == []


def test_its_memory_is_limited_and_it_evicts_nothing(guarded: Guarded) -> None:
    with guarded.client("admin") as admin:
        memory = admin.info("memory")
    assert (memory["maxmemory"], memory["maxmemory_policy"]) == (1 << 30, "noeviction")


DENIED = (
    "FLUSHALL",
    "CONFIG GET *",
    "CONFIG SET maxmemory 1",
    "KEYS *",
    "ACL LIST",
    "GET other",
    "SET other 1",
    "SHUTDOWN",
    "SCRIPT FLUSH",
    "MONITOR",
    "SLOWLOG RESET",
    "MEMORY USAGE other",
)
MAY = {"operator": {"CONFIG GET *"}}


@pytest.mark.parametrize(
    ("user", "command"),
    [(user, command) for user in USERS for command in DENIED if command not in MAY.get(user, ())],
)
def test_they_may_do_nothing_else(guarded: Guarded, user: str, command: str) -> None:
    with guarded.client(user) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split(" "))
    with guarded.client("admin") as admin:
        admin.acl_log_reset()


def test_operators_may_look_at_what_they_ask_for(guarded: Guarded, folder: Path) -> None:
    with ApiReplica(guarded.url("replica"), folder / "api.log") as replica:
        assert httpx.post(f"{replica.url}/v1/operations", json={"id": "import-4", "kind": "import"}).is_success
        shell = Shell(folder, redis_url=guarded.url("operator"))
        shares = json.loads(shell.run("storage", "--exact", "-o", "json").stdout)
        assert all(share["bytes"] for share in shares)
        for words in (("stats",), ("workers",), ("ls",), ("retention", "--ended", "1d"), ("audit",), ("replicas",)):
            assert shell.run(*words).returncode == 0  # other replicas may be present, with other settings
        found = json.loads(shell.run("doctor", "-o", "json").stdout)
        assert [it for it in found if it["level"] == "unchecked"] == []
        assert {"buffers", "grants"} <= {it["check"] for it in found if it["level"] == "good"}
        shell.says("rm", "import-4", "--force")
        with guarded.client("operator") as client:
            assert client.slowlog_get(1) is not None
    assert denied(guarded) == []


@pytest.mark.parametrize("user", ["replica", "operator"])
def test_every_command_of_a_script_is_granted(user: str) -> None:
    called = set()
    for script in (ROOT / "broker" / "progress_broker" / "storage" / "lua").glob("*.lua"):
        names = re.findall(r"(?:redis\.p?call|ask|write)\(\s*['\"](\w+)", script.read_text())
        called |= {name.lower() for name in names}
    assert called <= set(re.findall(r"\+(\w+)", USERS[user]))


def test_workers_reach_the_lanes_alone(guarded: Guarded) -> None:
    with guarded.client("worker") as client:
        for key in ("pb:denied", "pb:ticket-secret", "{pb:caller:1}:streams"):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.hget(key, "any")
    with guarded.client("admin") as admin:
        admin.acl_log_reset()


def test_a_missing_grant_is_named(guarded: Guarded, folder: Path) -> None:
    """As a worker's user, a replica can't list."""
    with ApiReplica(guarded.url("worker"), folder / "api.log") as replica:
        answer = httpx.get(f"{replica.url}/v1/operations", timeout=DEADLINE_S)
    assert answer.status_code == 503
    assert answer.json()["type"] == "storage-unavailable"
    assert "lacks a permission" in answer.json()["detail"]
    with guarded.client("admin") as admin:
        admin.acl_log_reset()


def test_nobody_gets_in_without_a_password_or_without_tls(guarded: Guarded) -> None:
    nameless = redis.Redis(port=guarded.port, ssl=True, ssl_ca_certs=str(guarded.certificate.cert))
    with nameless as client, pytest.raises(redis.exceptions.AuthenticationError):
        client.ping()
    with redis.Redis(port=guarded.port, retry=Retry(NoBackoff(), 0)) as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_a_redis_that_nobody_vouches_for_is_not_trusted(guarded: Guarded, folder: Path) -> None:
    url = guarded.url("replica").partition("?")[0]  # so that the system's authorities are asked
    with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        client.ping()
    replica = ApiReplica(url, folder / "api.log").start()
    try:
        wait_until(lambda: "certificate" in replica.output(), "it says why")
        assert "REPLICA-PASSWORD" not in replica.output()
    finally:
        replica.stop(9)
