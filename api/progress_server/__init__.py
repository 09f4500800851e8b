"""The HTTP API: operations as resources, and their events as server-sent events.

`Progress` mounts it in an app. Only this package uses FastAPI.
"""

from typing import TYPE_CHECKING, Any

from progress_broker.extras import require

require("server", "progress_server")

if TYPE_CHECKING:
    from progress_broker.model.grants import Grant, Grants, granted
    from progress_broker.model.operation import Operation
    from progress_server.auth.principal import Principal
    from progress_server.mounted.progress import Progress

__all__ = ["Grant", "Grants", "Operation", "Principal", "Progress", "granted"]

_HOMES = {
    "Grant": "progress_broker.model.grants",
    "Grants": "progress_broker.model.grants",
    "Operation": "progress_broker.model.operation",
    "Principal": "progress_server.auth.principal",
    "Progress": "progress_server.mounted.progress",
    "granted": "progress_broker.model.grants",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Late, because most that import a module of this package do not need all of it.
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
