"""The model and Redis: what an operation is, how its events are stored, and how a replica reads and hands them on."""

from typing import TYPE_CHECKING

_OF_WORKERS = {
    "AsyncOperation",
    "BrokerError",
    "Cancelled",
    "Fenced",
    "Gone",
    "Invalid",
    "LogHandler",
    "NotFound",
    "Operation",
    "OperationEnded",
    "OperationExists",
    "Pool",
    "PoolWorker",
    "ProcessFailed",
    "SetupError",
    "Signal",
    "StorageFull",
    "StorageUnavailable",
    "TooLarge",
    "current",
    "flush",
    "run_process",
    "track",
    "tracked",
}

if not TYPE_CHECKING:  # who knows by themselves what is in here

    def __getattr__(name: str) -> object:
        """Tell where the SDK is. An `AttributeError` would not do: `from … import` hides what it says."""
        if name in _OF_WORKERS:
            raise ImportError(f"{name} is in progress_workers: from progress_workers import {name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
