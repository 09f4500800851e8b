"""The work, without a queue: a program that takes the ids of operations from a list in Redis."""

import logging
import os
import time

from redis import Redis

from progress_workers import Cancelled, Operation, OperationEnded

log = logging.getLogger("worker")
jobs = Redis.from_url(os.environ["PROGRESS_REDIS_URL"], socket_timeout=None)


def import_rows(operation: Operation, count: int) -> None:
    """Import rows. It stops where it looks whether it was cancelled."""
    for row in operation.track(range(count)):
        operation.raise_if_cancelled()
        time.sleep(0.1)
        if row % 50 == 49:
            operation.log(f"{row + 1} rows are in")
    operation.succeed({"imported": count})


while True:
    _, id = jobs.brpop(["imports"])
    try:
        with Operation.attach(id.decode()) as operation:
            import_rows(operation, 300)
    except (Cancelled, OperationEnded):
        log.warning("import %s was cancelled", id.decode())
    except Exception:
        log.exception("import %s failed", id.decode())
