"""A replica that holds all the streams a principal may have is killed: another lets the principal in, soon enough.

`make test` does so with short leases, `make chaos` with those of the defaults.
"""

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.chaos import named_replica
from tests.servers import DEADLINE_S, ApiReplica, RealRedis, wait_until

GIVEN = os.environ.get("PROGRESS_STREAM_LEASE_S")
LEASE_S = float(GIVEN or "6")
SOONEST_S = 0.3 * LEASE_S
LATEST_S = LEASE_S + (5 if GIVEN else 60)  # within the 30 s that are promised; beside other tests machines are busy
STREAMS = 3
ANN = {"X-Principal": "ann"}


class NamedReplica(ApiReplica):
    """A replica whose callers are who they say."""

    main = staticmethod(named_replica.main)


def status(replica: ApiReplica) -> int:
    with httpx.stream("GET", f"{replica.url}/v1/operations/a/stream", headers=ANN, timeout=60) as answer:
        return answer.status_code


def test_the_streams_of_a_killed_replica_are_free_after_their_lease(folder: Path) -> None:
    with RealRedis(folder / "redis") as redis, ExitStack() as stack:
        limits = {"max_streams_per_principal": STREAMS, "stream_lease_s": LEASE_S}
        replicas = [NamedReplica(redis.url, folder / f"api-{i}.log", **limits) for i in range(2)]
        doomed, other = [stack.enter_context(replica) for replica in replicas]
        httpx.post(f"{other.url}/v1/operations", json={"id": "a"}, timeout=DEADLINE_S).raise_for_status()
        client = stack.enter_context(httpx.Client(base_url=doomed.url, timeout=60))
        for _ in range(STREAMS):
            stream = client.stream("GET", "/v1/operations/a/stream", headers=ANN)
            assert stack.enter_context(stream).status_code == 200
        assert status(other) == 429
        time.sleep(1.2 * LEASE_S)
        assert status(other) == 429, "they are renewed"
        doomed.send(signal.SIGKILL)
        killed = time.monotonic()
        assert status(other) == 429, "who is to know"
        wait_until(lambda: status(other) == 200, "they are free", LATEST_S)
        assert SOONEST_S < time.monotonic() - killed < LATEST_S
        print(f"free after {time.monotonic() - killed:.1f} s, with a lease of {LEASE_S:g} s")


def test_the_streams_of_a_replica_that_stops_are_free_at_once(folder: Path) -> None:
    with RealRedis(folder / "redis") as redis, ExitStack() as stack:
        limits = {"max_streams_per_principal": 1, "stream_lease_s": 60, "drain_s": 0.5}
        replicas = [NamedReplica(redis.url, folder / f"api-{i}.log", **limits) for i in range(2)]
        stopping, other = [stack.enter_context(replica) for replica in replicas]
        httpx.post(f"{other.url}/v1/operations", json={"id": "a"}, timeout=DEADLINE_S).raise_for_status()
        client = stack.enter_context(httpx.Client(base_url=stopping.url, timeout=60))
        stack.enter_context(client.stream("GET", "/v1/operations/a/stream", headers=ANN))
        assert status(other) == 429
        stopping.stop()
        wait_until(lambda: status(other) == 200, "it is free")
