"""deploy/redis-cluster.conf on each node of a Cluster: a server and a worker over TLS, with no more than they need.

The nodes announce a name that leads nowhere, so that they are reached only as the address says.
"""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from progress_broker.storage.keys import Keyspace
from tests.deploy.files import ROOT
from tests.deploy.proxies import Certificate, replaced
from tests.servers import DEADLINE_S, ApiReplica
from tests.topologies.cluster import Cluster, Migration
from tests.topologies.topology import LANES, client_of, do
from tests.workers.harness import finished, worker

CONF = (ROOT / "deploy" / "redis.conf").read_text()
NODE = replaced((ROOT / "deploy" / "redis-cluster.conf").read_text(), "include /etc/redis/redis.conf", "")
NOWHERE = "redis.invalid"
WORKER = """
    import time
    from contextlib import suppress
    from progress_workers import Cancelled, Operation

    operations = [Operation.start("work", id=f"work-{number}") for number in range(10)]
    for operation in operations:
        operation.log("begun")
        assert operation.flush()
    print("working", flush=True)
    while not all(operation.cancelled for operation in operations):
        time.sleep(0.01)
    for operation in operations:
        with suppress(Cancelled), operation:
            operation.raise_if_cancelled()
"""


class GuardedCluster(Cluster):
    """Three masters, each with a replica, with the configuration as it is written, and an operator of ours."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, replicas=1)
        self.certificate = Certificate(folder / "tls")
        for node in self.nodes:
            text = replaced(CONF, "tls-port 6379", f"tls-port {node.port}")
            text = replaced(text, "/etc/redis/tls/redis.crt", str(self.certificate.cert))
            text = replaced(text, "/etc/redis/tls/redis.key", str(self.certificate.key))
            text = replaced(text, "/etc/redis/tls/ca.crt", str(self.certificate.cert))
            conf = node.folder / "redis.conf"
            conf.write_text(
                f"{text}\nuser admin on >ADMIN-PASSWORD ~* &* +@all\n{replaced(NODE, 'redis-1.internal', NOWHERE)}\n"
            )
            node.command[1:3] = [str(conf)]  # instead of a port without TLS
            node.url = f"rediss://admin:ADMIN-PASSWORD@localhost:{node.port}?ssl_ca_certs={self.certificate.cert}"

    def url_of(self, user: str) -> str:
        seeds = ",".join(f"localhost:{node.port}" for node in self.nodes[1:])
        nat = ",".join(f"{NOWHERE}:{node.port}>localhost:{node.port}" for node in self.nodes)
        options = f"ssl_ca_certs={self.certificate.cert}&nat={nat}"
        return f"rediss+cluster://{user}:{user.upper()}-PASSWORD@{seeds}?{options}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedCluster]:
    with GuardedCluster(tmp_path_factory.mktemp("guarded")) as cluster:
        yield cluster


def test_a_server_and_a_worker_need_no_more_than_they_have(guarded: GuardedCluster, folder: Path) -> None:
    keyspace, settings = Keyspace("pb", LANES), {"redis_timeout_s": 5, "sweep_interval_s": 0.2}
    with (
        ApiReplica(guarded.url_of("replica"), folder / "api.log", **settings) as replica,
        httpx.Client(base_url=f"{replica.url}/v1", timeout=DEADLINE_S) as client,
    ):
        ids = [f"import-{number}" for number in range(30)]
        assert len({guarded.of_lane(keyspace.lane_of(id)) for id in ids}) == 3
        for id in ids:
            assert client.post("/operations", json={"id": id, "kind": "import"}).status_code == 201
        ended = {"type": "end", "data": {"status": "succeeded"}}
        assert {client.post(f"/operations/{id}/events", json=ended).status_code for id in ids} == {200}
        assert len(client.get("/operations", params={"kind": "import"}).json()["operations"]) == len(ids)
        stream = client.get("/operations/import-1/stream", params={"from": "start"}).text
        assert '"status":"succeeded"' in stream
        with worker(guarded.url_of("worker"), WORKER) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "working\n"
            for number in range(10):
                assert client.post(f"/operations/work-{number}/cancel").status_code == 202
            finished(process)
        shown = [client.get(f"/operations/work-{number}").json()["status"] for number in range(10)]
        assert shown == ["cancelled"] * 10

        moving = Migration(guarded, guarded.slot_of_lane(keyspace.lane_of("missing")))
        moving.begin()
        assert client.get("/operations/missing").status_code == 404, "it is asked for where it may have gone"
        for node in (moving.source, moving.target):
            do(node, "CLUSTER", "SETSLOT", moving.slot, "STABLE")
        assert "NOPERM" not in replica.output()
    for node in guarded.nodes:
        with client_of(node) as admin:
            assert admin.acl_log() == []
