"""The metrics of a replica that has answered one request."""

import fakeredis
import fakeredis.aioredis
from prometheus_client.metrics_core import Metric

from progress_broker.hub import Hub
from progress_broker.operations.reaper import Reaper
from progress_broker.operations.store import Store
from progress_broker.storage.connections import Connections
from progress_broker.storage.schema import ensure_schema
from progress_server.observability.metrics import registry_of
from tests.conftest import make_settings


async def replica_metrics() -> list[Metric]:
    settings = make_settings()
    redis = fakeredis.aioredis.FakeRedis(server=fakeredis.FakeServer(), protocol=2)
    connections = Connections.of(redis, redis)
    async with Store(connections, await ensure_schema(connections, settings), settings) as store:
        hub = Hub(store, settings)
        hub.masters.failovers = hub.masters.without_replica = hub.masters.unsuitable = 0  # as a Sentinel set reports
        hub.tally.requests.add("GET", "/v1/operations", "2xx", 0.1)  # a route is shown after its first request
        return list(registry_of(hub, Reaper(store), processes=1).collect())
