"""The metrics of a replica that has answered one request."""

import fakeredis
import fakeredis.aioredis
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from progress_broker.hub import Hub
from progress_broker.limits.limiter import Limiter
from progress_broker.operations.reaper import Reaper
from progress_broker.operations.store import Store
from progress_broker.storage.connections import Connections
from progress_broker.storage.schema import ensure_schema
from progress_server.context import live_settings
from progress_server.observability.metrics import registry_of
from progress_server.observability.redis_state import RedisState
from tests.conftest import make_settings


def registry_for(store: Store, reaper: Reaper, processes: int = 1) -> CollectorRegistry:
    """Return the metrics of a replica that has not begun."""
    hub = Hub(store, store.settings)
    limiter, live = Limiter(store.settings, hub.tally), live_settings(store.settings)
    return registry_of(hub, reaper, RedisState(store), live, limiter, processes=processes)


async def replica_metrics() -> list[Metric]:
    settings = make_settings()
    redis = fakeredis.aioredis.FakeRedis(server=fakeredis.FakeServer(), protocol=2)
    connections = Connections.of(redis, redis)
    async with Store(connections, await ensure_schema(connections, settings), settings) as store:
        hub = Hub(store, settings)
        hub.masters.failovers = hub.masters.without_replica = hub.masters.unsuitable = 0  # as a Sentinel set reports
        hub.tally.requests.add("GET", "/v1/operations", "2xx", 0.1)  # a route is shown after its first request
        state, live = RedisState(store), live_settings(settings)
        await state.refresh()
        state.replicas = state.settings_differ = 0
        live.certificate_expires_at = 2_000_000_000.0
        limiter = Limiter(settings, hub.tally)
        return list(registry_of(hub, Reaper(store), state, live, limiter, processes=1).collect())
