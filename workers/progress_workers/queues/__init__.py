"""Task queues whose tasks are operations without a change to them: Celery, RQ, Dramatiq, arq, taskiq.

One module for each, which is the guide to it (`python -m pydoc progress_workers.queues.celery`) and needs its extra
(`pip install 'progress-broker[celery]'`). For all of them:

- The operation's id is the task's id. Enqueueing creates it as pending, so it can be followed at once.
- In a task `progress_workers.current()` is its operation: `progress_workers.current().advance()`,
  `progress_workers.track(rows)`.
- What a task returns is the operation's result, with texts in the place of what JSON can't hold
  (`progress_workers.values`); a result that is too large is left out. Whatever it is, the queue says the same of the
  task as without us.
- An exception fails the operation, `SystemExit` too, as for the queues it is a failure. Where the queue will run the
  task again, the operation goes on instead, and the next run is its next attempt.
- A task that is revoked ends its operation as cancelled. An operation that is cancelled stops its task, and one that is
  cancelled before its task began keeps it from running.
- Where Redis can't be reached the task is enqueued and run all the same, unreported; the log says so.

An operation has one end, as it has one id. A task that is run again after it ended (requeued by hand, or enqueued
under an id that was used before) runs unreported, unless its operation was cancelled: then it does not run.
"""
