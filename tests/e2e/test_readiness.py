"""`/readyz` reports whether published events arrive and, if not, why."""

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import StartReplica
from tests.servers import DEADLINE_S, RealRedis, free_port, wait_until
from tests.workers.proxy import Proxy

PROBE_INTERVAL_S = 1
"""A proof is valid for three of them: a probe that takes longer makes a replica unready, also on a busy machine."""


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RealRedis]:
    with RealRedis(tmp_path / "own", port=free_port()) as server:
        yield server


def reason(url: str) -> str | None:
    """Return why a replica is not ready."""
    answer = httpx.get(f"{url}/readyz", timeout=DEADLINE_S)
    assert httpx.get(f"{url}/livez", timeout=DEADLINE_S).status_code == 200
    if answer.status_code == 200:
        return None
    assert answer.status_code == 503
    assert answer.headers["retry-after"].isdecimal()
    why: str = answer.json()["reason"]
    return why


def test_a_redis_that_hangs_makes_a_replica_unready_until_it_goes_on(
    own_redis: RealRedis, start_replica: StartReplica
) -> None:
    url = start_replica(own_redis.url, probe_interval_s=PROBE_INTERVAL_S, redis_timeout_s=1).url
    wait_until(lambda: reason(url) is None, "it is ready")
    own_redis.send(signal.SIGSTOP)
    wait_until(lambda: reason(url) == "redis away", "it is noticed")
    own_redis.send(signal.SIGCONT)
    wait_until(lambda: reason(url) is None, "it is ready again")


def test_a_feed_that_is_stuck_makes_a_replica_unready_though_commands_work(
    own_redis: RealRedis, start_replica: StartReplica
) -> None:
    with Proxy(int(own_redis.url.rpartition(":")[2])) as proxy:
        url = start_replica(proxy.url, probe_interval_s=PROBE_INTERVAL_S, redis_timeout_s=3).url
        wait_until(lambda: reason(url) is None, "it is ready")
        proxy.muting = b"XREAD\r\n"
        wait_until(lambda: reason(url) == "feed silent", "it is noticed")
        assert httpx.post(f"{url}/v1/operations", json={"id": "a"}, timeout=DEADLINE_S).status_code == 201
        proxy.muting = None
        wait_until(lambda: reason(url) is None, "it is ready again")


def test_a_redis_that_takes_no_writes_leaves_a_replica_ready(own_redis: RealRedis, start_replica: StartReplica) -> None:
    """Stored events can be read and watched. Removing every replica from the load balancer would not help."""
    import redis

    replica = start_replica(own_redis.url, probe_interval_s=PROBE_INTERVAL_S)
    assert httpx.post(f"{replica.url}/v1/operations", json={"id": "kept"}, timeout=DEADLINE_S).status_code == 201
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("maxmemory", 1)
    wait_until(
        lambda: httpx.post(f"{replica.url}/v1/operations", json={"kind": "x"}, timeout=DEADLINE_S).status_code == 507,
        "Redis is full",
    )
    for _ in range(20):
        assert reason(replica.url) is None
    wait_until(lambda: _full(replica.url), "it says so")
    told = httpx.get(f"{replica.url}/metrics", timeout=DEADLINE_S).text
    assert "progress_broker_redis_full 1.0" in told
    assert "progress_broker_ready 1.0" in told
    assert "progress_broker_redis_memory_max_bytes 1.0" in told
    assert httpx.get(f"{replica.url}/v1/operations/kept", timeout=DEADLINE_S).json()["status"] == "pending"
    assert httpx.delete(f"{replica.url}/v1/operations/kept?force=true", timeout=DEADLINE_S).status_code == 204
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("maxmemory", 0)
    wait_until(
        lambda: httpx.get(f"{replica.url}/readyz", timeout=DEADLINE_S).json() == {"status": "ready"},
        "it has room again",
    )


def _full(url: str) -> bool:
    told = httpx.get(f"{url}/readyz", timeout=DEADLINE_S).json()
    return told.get("reason") == "redis full" and "Redis is out of memory" in told["detail"]
