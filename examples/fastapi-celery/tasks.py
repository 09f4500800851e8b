"""The work: a Celery task, whose progress is reported because `install` was called."""

import os
import time

from celery import Celery

import progress_workers
from progress_workers.queues.celery import install

celery = Celery("example", broker=os.environ["PROGRESS_REDIS_URL"])
install(celery)


@celery.task
def import_rows(count: int) -> dict[str, int]:
    """Import rows. It stops where it looks whether it was cancelled."""
    operation = progress_workers.current()
    for row in operation.track(range(count)):
        operation.raise_if_cancelled()
        time.sleep(0.1)
        if row % 50 == 49:
            operation.log(f"{row + 1} rows are in")
    return {"imported": count}
