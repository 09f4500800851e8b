"""Each script, at its largest sizes, runs a bounded number of commands. How long they take, the benchmark bounds."""

import pytest

from bench.redis_time import CASES, UNBOUNDED, Largest
from progress_broker.operations.store import Store
from progress_broker.storage.scripts import VERBS
from tests.broker.costs import measured
from tests.conftest import make_settings
from tests.servers import RealRedis

MOST = {
    "retain": 1_200,
    "sweep": 1_500,
    "repair": 800,
    "children": 1_200,
    "find": 800,
    "walk": 1_000,
    "count": 1_000,
    "lapsed": 250,
    "listing": 1_200,
    "publish": 1_300,
    "stage": 110,
    "adopt": 120,
    "mirror": 600,
    "mirror_feed": 110,
}
ALL_OR_NONE = 5_000


def test_every_script_has_a_case() -> None:
    assert set(VERBS.values()) <= {name.partition(":")[0].partition(",")[0] for name in CASES}


@pytest.mark.parametrize("name", CASES)
async def test_a_script_runs_a_bounded_number_of_commands(name: str, redis_server: RealRedis, redis_url: str) -> None:
    async with await Store.open(make_settings(redis_url=redis_url, lanes=1)) as store:
        call = await CASES[name](Largest(store))
        async with measured(store.connections.commands) as cost:
            await call()
    verb = name.partition(":")[0]
    most = ALL_OR_NONE if name.startswith(UNBOUNDED) else MOST.get(verb, 60)
    assert cost.commands / max(1, cost.scripts) <= most
