from collections.abc import AsyncIterator

import pytest

from progress_broker.settings import Settings
from tests.api.conftest import app, backend, base_url, http, outlet, server, server_options
from tests.callback.backend import SECRET, TheirBackend
from tests.conftest import make_settings

__all__ = ["app", "backend", "base_url", "http", "outlet", "server", "server_options"]


@pytest.fixture
async def theirs() -> AsyncIterator[TheirBackend]:
    async with TheirBackend().serving() as backend:
        yield backend


@pytest.fixture
def tuning() -> dict[str, object]:
    """What else is set."""
    return {}


@pytest.fixture
def settings(theirs: TheirBackend, tuning: dict[str, object]) -> Settings:
    return make_settings(auth="callback", callback_url=theirs.url, callback_secret=SECRET, **tuning)
