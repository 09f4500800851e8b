"""For programs that read: follow operations, list them, wait for their ends, and cancel them.

Set where they are: `PROGRESS_URL` (a server) and `PROGRESS_TOKEN`, or `PROGRESS_REDIS_URL`. Without either, it is the
private Redis of a server on this machine. Then

    >>> from progress_client import End, Log, Progress, watch
    >>> def follow(id):
    ...     for event in watch(id):
    ...         match event:
    ...             case Progress(percent=percent):
    ...                 print(percent)
    ...             case Log(message=message):
    ...                 print(message)
    ...             case End(status=status):
    ...                 print(status.value)

`watch` survives cut connections, and servers and Redis that restart: it yields each event once, in order. Coroutines do
the same with `async with AsyncClient() as client: async for event in client.watch(id)`.

    >>> from progress_client import list_operations, wait
    >>> def report():
    ...     for operation in list_operations(kind="import", status="failed"):
    ...         print(operation.id, operation.percent, operation.error)
    ...     return wait("import-42", timeout=60).result

The functions share a client that the environment configures. `Client(url, token=…)` is for another server.
"""

from progress_broker.errors import (
    BrokerError,
    Forbidden,
    Gone,
    InvalidInput,
    NotFound,
    OperationEnded,
    ServerUnavailable,
    SetupError,
    StorageUnavailable,
    Unauthenticated,
)
from progress_broker.model.operation import Operation, Status
from progress_client.async_client import AsyncClient
from progress_client.client import Client
from progress_client.events import (
    Child,
    Custom,
    End,
    Event,
    Log,
    MetadataChange,
    Progress,
    Reset,
    Snapshot,
    StatusChange,
)
from progress_client.shared import cancel, get, list_operations, signal, wait, watch

__all__ = [
    "AsyncClient",
    "BrokerError",
    "Child",
    "Client",
    "Custom",
    "End",
    "Event",
    "Forbidden",
    "Gone",
    "InvalidInput",
    "Log",
    "MetadataChange",
    "NotFound",
    "Operation",
    "OperationEnded",
    "Progress",
    "Reset",
    "ServerUnavailable",
    "SetupError",
    "Snapshot",
    "Status",
    "StatusChange",
    "StorageUnavailable",
    "Unauthenticated",
    "cancel",
    "get",
    "list_operations",
    "signal",
    "wait",
    "watch",
]
