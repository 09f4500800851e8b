"""A Celery app with plain tasks. Run: `celery -A tests.queues.celery_app worker`."""

import contextlib
import os
from typing import Any

from celery import Celery, Task, chain, chord, group
from celery.exceptions import Ignore, Reject

from progress_workers.queues.celery import install
from tests.queues import work

URL = os.environ["QUEUE_REDIS_URL"]
app = Celery("tests", broker=URL, backend=URL)
app.conf.update(broker_connection_retry_on_startup=True, worker_prefetch_multiplier=1, worker_hijack_root_logger=False)
install(app, terminate_after_s=0.3)

RETRIES = {"autoretry_for": (ValueError,), "retry_kwargs": {"countdown": 0.1, "max_retries": 1}}


@app.task(progress={"kind": "count", "tags": ["eu"]})
def count(rows: int) -> Any:
    return work.count(rows)


class Custom(Task):
    """A user's own base class, which does not know about reporting."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(*args, **kwargs)


@app.task(base=Custom, ignore_result=True)
def odd() -> Any:
    return work.odd()


@app.task
def returns(name: str) -> Any:
    return work.returns(name)


@app.task(progress=False)
def returns_unreported(name: str) -> Any:
    return work.returns(name)


@app.task
def breaks() -> None:
    work.breaks()


@app.task(**RETRIES)
def flaky() -> int:
    return work.flaky()


@app.task(**RETRIES)
def hopeless() -> None:
    work.breaks()


@app.task(acks_late=True, reject_on_worker_lost=True)
def dies() -> int:
    return work.dies()


@app.task(retry_on_worker_lost=True, default_retry_delay=0)
def sent_again() -> int:
    return work.dies()


@app.task
def lost() -> None:
    work.dies()


@app.task
def waits() -> None:
    work.waits()


@app.task
def deaf() -> None:
    work.deaf()


@app.task
def touch(path: str) -> None:
    work.touch(path)


@app.task(progress=False)
def unreported() -> None:
    work.count(3)


@app.task(bind=True)
def replaced(self: Any) -> None:
    raise self.replace(count.s(2))


@app.task(bind=True)
def replaced_by(self: Any, shape: str) -> Any:
    """Replace itself, after it has counted more than the replacement has tasks."""
    work.count(10)
    canvases = {
        "group": lambda: group(count.s(rows) for rows in (1, 2)),
        "chain": lambda: chain(count.s(1), passes.s(), count.si(2)),
        "chord": lambda: chord([count.s(1), count.s(2)], passes.s()),
        "nested": lambda: chain(count.s(1), group(replaced.si(), replaced_by.si("chain"))),
        "failing": lambda: group(count.s(1), breaks.s()),
        "waiting": lambda: chain(waits.s(), passes.si()),
        "unreported": lambda: unreported.si(),
    }
    return self.replace(canvases[shape]())


@app.task(bind=True)
def ignored(self: Any) -> None:
    raise Ignore("nothing to do")


@app.task(time_limit=1)
def too_slow() -> None:
    work.deaf()


@app.task
def rejected() -> None:
    raise Reject("no good", requeue=False)


@app.task(bind=True)
def tells_states(self: Any) -> Any:
    """Tell Celery how far it is, as its documentation shows, and what no reporting should choke on."""
    meta = {"current": 3, "total": 4, "status": "reading", "rows_bad": 2}
    self.update_state(state="PROGRESS", meta=meta)
    told = self.backend.get_task_meta(self.request.id)
    self.update_state(task_id="another", state="PROGRESS", meta={"current": 99})
    for odd in (None, [1], {"current": "x", 1: work.Odd}, {"percent": {}}):
        with contextlib.suppress(Exception):  # Celery's own, which can't write it
            self.update_state(state="PROGRESS", meta=odd)
    self.update_state(state="SUCCESS", meta={"current": 98})
    return [told["status"], told["result"] == meta]


@app.task
def passes(*results: Any) -> Any:
    return "passed"
