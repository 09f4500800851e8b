"""A Sentinel set and a Cluster as they should be: doctor finds nothing wrong with any of their servers."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from progress_broker.diagnosis.finding import Check, Level
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from tests.conftest import make_settings
from tests.doctor.conftest import AS_IT_SHOULD_BE
from tests.doctor.found import bad, examine
from tests.servers import wait_until
from tests.topologies.cluster import Cluster
from tests.topologies.kinds import ALL_BACKENDS
from tests.topologies.sentinel import SentinelSet
from tests.topologies.topology import do

OPTIONS = ("--appendonly", "yes", *AS_IT_SHOULD_BE)
HERE: dict[str, Callable[[Path], Any]] = {"sentinel": lambda folder: SentinelSet(folder, replicas=1, options=OPTIONS)}
if ALL_BACKENDS in os.environ:
    HERE["cluster"] = lambda folder: Cluster(folder, replicas=1, options=OPTIONS)
    HERE["valkey9"] = lambda folder: Cluster(folder, replicas=1, options=OPTIONS, server="valkey9")


@pytest.mark.parametrize("kind", HERE)
async def test_nothing_is_wrong(kind: str, folder: Path) -> None:
    with HERE[kind](folder) as topology:
        wait_until(lambda: all(do(master, "ROLE")[2] for master in topology.masters()), "replicas follow the masters")
        async with await Store.open(make_settings(redis_url=topology.url)) as store:
            await store.create(NewOperation(id="import-1"))
            found = await examine(topology.url)
            masters = len(await store.connections.masters())
    assert bad(found) == {(Check.REPLICAS, Level.FAULT)}  # as there is no server
    assert len([it for it in found if it.check is Check.COPIES]) == masters
