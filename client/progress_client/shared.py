"""The functions of the package: a client that the environment configures, shared by the whole process."""

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from progress_broker.model.operation import Operation, Status
from progress_broker.settings import load_settings
from progress_client.client import Client
from progress_client.events import Event

_lock = threading.Lock()
_client: Client | None = None


def client() -> Client:
    """Return the shared client; a new one if the settings have changed."""
    global _client
    with _lock:
        settings = load_settings()
        if _client is None or _client.settings != settings:
            before, _client = _client, Client(settings=settings)
            if before is not None:
                before.close()
        return _client


def get(id: str, *, list_children: bool = False) -> Operation:
    """Return an operation as it is now; with `list_children`, also the first of its children."""
    return client().get(id, list_children=list_children)


def list_operations(
    *,
    status: Status | str | Iterable[Status | str] | None = None,
    owner: str | None = None,
    kind: str | None = None,
    tag: str | Iterable[str] | None = None,
    parent: str | None = None,
    metadata: Mapping[str, str | float] | None = None,
) -> Iterator[Operation]:
    """Yield the operations that match, the most recently changed first: see `AsyncClient.list`."""
    return client().list(status=status, owner=owner, kind=kind, tag=tag, parent=parent, metadata=metadata)


def watch(id: str, *, after: str | None = None, types: Iterable[str] | None = None) -> Iterator[Event]:
    """Yield what happens to an operation, as it happens, up to its `End`: see `AsyncClient.watch`."""
    return client().watch(id, after=after, types=types)


def wait(id: str, timeout: float | None = None) -> Operation:
    """Return the operation once it has ended. Raises `TimeoutError` if it has not within `timeout` seconds."""
    return client().wait(id, timeout)


def cancel(id: str, reason: str | None = None, *, by: str | None = None, force: bool = False) -> Operation:
    """Ask the worker of an operation, and those of its children, to stop: see `AsyncClient.cancel`."""
    return client().cancel(id, reason, by=by, force=force)


def signal(id: str, type: str, data: Any = None, *, by: str | None = None) -> None:
    """Send a signal, such as `pause`, to an operation's worker, which decides what to do with it."""
    client().signal(id, type, data, by=by)
