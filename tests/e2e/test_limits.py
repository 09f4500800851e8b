"""Limits of a server as users run it: they apply to the right callers, also without Redis."""

import re
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import StartReplica
from tests.e2e.harness import OPS, Api
from tests.servers import DEADLINE_S, RealRedis, wait_until

ALONE = "applies the limits to its own streams"
FIRST, SECOND = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}


@pytest.mark.parametrize(("trusted", "status"), [("127.0.0.0/8", 200), ("192.0.2.9", 429)])
def test_who_calls_is_what_a_trusted_proxy_says(
    e2e_redis: RealRedis, start_replica: StartReplica, trusted: str, status: int
) -> None:
    replica = start_replica(e2e_redis.url, trusted_proxies=trusted, max_streams_per_address=1)
    with Api(replica.url) as api:
        stream = api.stream(api.create(kind="limits"))
        with (
            httpx.stream("GET", stream, headers=FIRST, timeout=DEADLINE_S),
            httpx.stream("GET", stream, headers=SECOND, timeout=DEADLINE_S) as second,
        ):
            assert second.status_code == status
            with httpx.stream("GET", stream, headers=FIRST, timeout=DEADLINE_S) as first:
                assert first.status_code == 429


def test_a_request_is_only_so_large(e2e_redis: RealRedis, start_replica: StartReplica) -> None:
    replica = start_replica(e2e_redis.url, max_url_bytes=1_000, max_head_bytes=2_000)
    with Api(replica.url) as api:
        assert api.http.get(f"{OPS}?cursor={'x' * 1_000}").json()["type"] == "uri-too-long"
        answer = api.http.get(OPS, headers={"X": "x" * 2_000})
        assert (answer.status_code, answer.json()["type"]) == (431, "head-too-large")
        assert api.http.get(OPS).status_code == 200


def test_without_redis_limits_hold_and_nobody_is_locked_out(tmp_path: Path, start_replica: StartReplica) -> None:
    with RealRedis(tmp_path / "kept", keep=True, options=("--appendfsync", "always")) as redis:
        replicas = [start_replica(redis.url, requests_per_s=4, ring_length=128) for _ in range(2)]
        with Api(replicas[0].url) as api, Api(replicas[1].url) as other:
            api.create(id="a")
            with api.http.stream("GET", f"{OPS}/a/stream?ping=event") as stream:
                text = stream.iter_text()
                assert "snapshot" in next(text)
                before = replicas[0].output().count(ALONE)  # on a busy machine this may already be so
                redis.stop()
                assert counts(api) == {503, 429}, "it is let in, and no more than so often"
                time.sleep(2)
                assert api.http.get(OPS).status_code == 503
                assert replicas[0].output().count(ALONE) <= before + 1, "it is told once"
                redis.start()
                wait_until(lambda: api.http.get("/readyz").status_code == 200, "it is back")
                wait_until(lambda: other.http.get(OPS).status_code == 200, "it is back there, too")
                assert any("ping" in part for part in text), "an open stream was left alone"
            wait_until(lambda: _together(api), "limits are kept together again")
            wait_until(lambda: _exhausted(api, other), "the other hears of what was spent here")
    log = replicas[0].output()
    assert log.count(ALONE) == log.count("all replicas share the limits again") >= 1


def counts(api: Api) -> set[int]:
    """Send requests until the bucket is empty. It refills far more slowly than this machine sends."""
    statuses = set[int]()
    while 429 not in statuses:
        statuses.add(api.http.get(OPS).status_code)
    return statuses


def _together(api: Api) -> bool:
    alone, together = re.findall(r"limiter_mode_changes_total\{.*\} (.*)", api.http.get("/metrics").text)
    return float(alone) == float(together) >= 1


def _exhausted(api: Api, other: Api) -> bool:
    while api.http.get(OPS).status_code == 200:
        pass
    time.sleep(0.3)
    return [other.http.get(OPS).status_code for _ in range(10)].count(429) >= 3
