"""Plain functions, for RQ. Run: `rq worker --job-class tests.queues.rq_app.Job`."""

import os

from redis import Redis
from rq import Retry

from progress_workers import current
from progress_workers.queues import rq
from tests.queues.work import breaks, count, deaf, dies, flaky, odd, returns, touch, waits

__all__ = ["breaks", "count", "deaf", "dies", "flaky", "lost", "odd", "returns", "touch", "waits"]

connection = Redis.from_url(os.environ["QUEUE_REDIS_URL"])


class Job(rq.Job):
    stop_after_s = 0.3


queue = rq.Queue("tests", connection=connection)
hopeless = breaks
lost = dies
unreported = count
returns_unreported = returns


def asks_again() -> object:
    return Retry(max=1) if current().attempt == 1 else current().attempt
