"""Topologies to break. They are started for `make chaos` and `make soak` only: `make test` has a short test of each
fault."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.topologies.cluster import Cluster
from tests.topologies.sentinel import SentinelSet

collect_ignore_glob = [] if "PROGRESS_FAILOVERS" in os.environ else ["test_*.py"]
if "PROGRESS_SOAK_S" not in os.environ:
    collect_ignore_glob.append("test_for_an_hour.py")


@pytest.fixture
def cluster(folder: Path) -> Iterator[Cluster]:
    """Three masters, each with a replica."""
    with Cluster(folder / "cluster", replicas=1) as cluster:
        yield cluster


@pytest.fixture
def sentinels(folder: Path) -> Iterator[SentinelSet]:
    """A master, two replicas and three sentinels."""
    with SentinelSet(folder / "sentinels") as sentinels:
        yield sentinels
