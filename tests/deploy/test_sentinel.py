"""deploy/sentinel.conf: a server and a worker over TLS, as a user of the sentinel that may do what it needs alone.

And addresses of sentinels that can't be right.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from progress_broker.errors import SetupError
from progress_broker.operations.store import Store
from progress_workers import Operation, StorageUnavailable
from tests.conftest import make_settings
from tests.deploy.files import ROOT
from tests.deploy.proxies import replaced
from tests.deploy.test_redis import Guarded
from tests.servers import ApiReplica, Process, free_port, need, wait_until
from tests.workers.harness import finished, worker

CONF = (ROOT / "deploy" / "sentinel.conf").read_text()
SERVER = replaced((ROOT / "deploy" / "redis-replicated.conf").read_text(), "include /etc/redis/redis.conf", "")
SERVER = replaced(SERVER, "replica-announce-ip redis-1.internal", "replica-announce-ip localhost")
WORKER = """
    from progress_workers import Operation

    with Operation.start("import", id="import-1") as op:
        op.advance(1)
"""


class GuardedSentinel(Process):
    """A sentinel with the configuration as it is written, for one server with the other one."""

    def __init__(self, folder: Path, server: Guarded) -> None:
        self.server, self.port = server, free_port()
        text = replaced(CONF, "tls-port 26379", f"bind 127.0.0.1\ndir {folder}\ntls-port {self.port}")
        text = replaced(text, "redis-1.internal 6379 2", f"localhost {server.port} 1")
        text = replaced(text, "/etc/redis/tls/redis.crt", str(server.certificate.cert))
        text = replaced(text, "/etc/redis/tls/redis.key", str(server.certificate.key))
        text = replaced(text, "/etc/redis/tls/ca.crt", str(server.certificate.cert))
        conf = folder / "sentinel.conf"
        conf.write_text(f"{text}\nuser admin on >ADMIN-PASSWORD &* +@all\n")
        super().__init__([need("redis-server", "redis-server"), str(conf), "--sentinel"], folder / "sentinel.log")

    def url(self, user: str, *, service: str = "main", password: str = "BROKER-PASSWORD", hosts: str = "") -> str:
        options = f"ssl_ca_certs={self.server.certificate.cert}&sentinel_user=broker&sentinel_password={password}"
        hosts = hosts or f"localhost:1,localhost:{self.port}"  # nobody listens at the first
        return f"rediss+sentinel://{user}:{user.upper()}-PASSWORD@{hosts}/{service}?{options}"

    def ask(self, *command: str) -> Any:
        address = f"rediss://admin:ADMIN-PASSWORD@localhost:{self.port}?ssl_ca_certs={self.server.certificate.cert}"
        with redis.Redis.from_url(address, protocol=2, decode_responses=True) as client:
            return client.execute_command(*command)

    def subscribed(self) -> bool:
        return "cmd=subscribe user=broker" in str(self.ask("CLIENT", "LIST"))

    def master(self) -> dict[str, str]:
        reply = self.ask("SENTINEL", "MASTER", "main")
        return dict(zip(reply[::2], reply[1::2], strict=True))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedSentinel]:
    folder = tmp_path_factory.mktemp("guarded")
    with Guarded(folder / "master", SERVER) as server:
        following = Guarded(folder / "replica", f"{SERVER}\nreplicaof localhost {server.port}", server.certificate)
        with following as replica, GuardedSentinel(folder, server) as sentinel:
            wait_until(lambda: "+monitor master" in sentinel.output(), "the sentinel starts")
            wait_until(lambda: is_linked(replica), "the replica follows: until then the master rejects writes")
            yield sentinel


def is_linked(replica: Guarded) -> bool:
    with replica.client("admin") as admin:
        return bool(admin.info("replication")["master_link_status"] == "up")


def test_a_server_and_a_worker_need_no_more_than_they_have(guarded: GuardedSentinel, tmp_path: Path) -> None:
    with ApiReplica(guarded.url("replica"), tmp_path / "api.log", redis_timeout_s=5) as replica:
        finished(worker(guarded.url("worker"), WORKER))
        shown = httpx.get(f"{replica.url}/v1/operations/import-1").json()
        assert shown["status"] == "succeeded"
        wait_until(guarded.subscribed, "the server listens to the sentinel")
    with guarded.server.client("admin") as admin:
        assert admin.acl_log() == []
    assert guarded.ask("ACL", "LOG") == []
    wait_until(lambda: guarded.master()["flags"] == "master", "the sentinel may do what it needs, too")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"service": "other"}, r"localhost:\d+: watches no master with the name other"),
        ({"service": "other", "hosts": "alone"}, "watch no master with the name other: write the name"),
        ({"password": "WRONG"}, r"rejected the user or password \(invalid username-password pair"),
    ],
)
async def test_a_wrong_address_is_rejected_by_name(guarded: GuardedSentinel, wrong: dict[str, str], said: str) -> None:
    if "hosts" in wrong:  # no other one that may know better
        wrong = wrong | {"hosts": f"localhost:{guarded.port}"}
    settings = make_settings(redis_url=guarded.url("replica", **wrong), redis_timeout_s=5)
    with pytest.raises(SetupError, match=said) as raised:
        await Store.open(settings)
    assert "PASSWORD" not in str(raised.value)
    with pytest.raises(StorageUnavailable, match=said):
        Operation.start("import", settings=settings, required=True)
