"""A fixture with a hub over a store. When the hub is closed, it must be empty."""

from collections.abc import AsyncIterator

import pytest

from progress_broker.hub import Hub
from progress_broker.operations.store import Store


@pytest.fixture
async def hub(store: Store) -> AsyncIterator[Hub]:
    async with Hub(store, store.settings) as hub:
        await hub.started()
        yield hub
    assert not hub.channels
    assert not hub.bundles
    assert not hub.replays
    assert len(hub.wheel) == 0
