"""The name of this worker, as people see it."""

import os
import socket

from progress_workers.values import label


def worker_name(worker: str | None) -> str:
    """Return the worker's name that people see: the given one, or else `host:pid`."""
    given = "" if worker is None else label(worker)
    return given or label(f"{socket.gethostname()}:{os.getpid()}")
