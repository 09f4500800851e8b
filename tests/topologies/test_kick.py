"""Streams are ended at whichever replica they are, also where Redis is a Sentinel set or a Cluster."""

import os
from pathlib import Path

import httpx
import pytest

from tests.conftest import url_of
from tests.servers import DEADLINE_S, ApiReplica, wait_until
from tests.topologies.kinds import ALL_BACKENDS, KINDS


@pytest.mark.parametrize("kind", KINDS if ALL_BACKENDS in os.environ else ["cluster"])
def test_a_stream_at_another_replica_is_ended(kind: str, folder: Path, request: pytest.FixtureRequest) -> None:
    redis_url = url_of(kind, request)
    with ApiReplica(redis_url, folder / "one") as one, ApiReplica(redis_url, folder / "two") as two:
        assert httpx.post(f"{one.url}/v1/operations", json={"id": "a"}).status_code == 201
        admin = f"{one.url}/v1/admin"
        wait_until(lambda: len(httpx.get(f"{admin}/replicas").json()["replicas"]) == 2, "both are present")
        with httpx.stream("GET", f"{two.url}/v1/operations/a/stream", timeout=DEADLINE_S) as answer:
            ended = httpx.delete(f"{admin}/streams/{answer.headers['progress-connection']}", timeout=DEADLINE_S)
            assert ended.status_code == 200, ended.text
            assert '"reason":"kicked"' in answer.read().decode()
