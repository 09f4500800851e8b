"""The work: a job of RQ, whose progress is reported because of the queue's class."""

import time

import progress_workers


def import_rows(count: int) -> dict[str, int]:
    """Import rows. It stops where it looks whether it was cancelled."""
    operation = progress_workers.current()
    for row in operation.track(range(count)):
        operation.raise_if_cancelled()
        time.sleep(0.1)
        if row % 50 == 49:
            operation.log(f"{row + 1} rows are in")
    return {"imported": count}
