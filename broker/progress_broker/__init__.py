"""The data model and Redis: operations, how their events are stored, and how a replica reads and delivers them."""

from typing import TYPE_CHECKING

_OF_WORKERS = {
    "AsyncOperation",
    "BrokerError",
    "Cancelled",
    "Fenced",
    "Gone",
    "InvalidInput",
    "LogHandler",
    "NotFound",
    "Operation",
    "OperationEnded",
    "OperationExists",
    "Pool",
    "PoolWorker",
    "ProcessFailed",
    "ProcessTimedOut",
    "SetupError",
    "Signal",
    "StorageFull",
    "StorageUnavailable",
    "TooLarge",
    "current",
    "flush",
    "run_process",
    "run_process_async",
    "track",
    "tracked",
}

if not TYPE_CHECKING:  # type checkers resolve names themselves

    def __getattr__(name: str) -> object:
        """Say that the SDK is in another package. `from … import` would hide the text of an `AttributeError`."""
        if name in _OF_WORKERS:
            raise ImportError(f"{name} is in progress_workers: from progress_workers import {name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
