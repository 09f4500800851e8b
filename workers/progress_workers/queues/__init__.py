"""Task queues whose tasks become operations without changes to the tasks: Celery, RQ, Dramatiq, arq, taskiq.

Each queue has one module. Its docstring is the guide (`python -m pydoc progress_workers.queues.celery`), and it needs
its extra (`pip install 'progress-broker[celery]'`). For all queues:

- The operation's id is the task's id. Enqueueing creates the operation as pending, so it can be followed at once.
- In a task, `progress_workers.current()` is its operation: `progress_workers.current().advance()`,
  `progress_workers.track(rows)`.
- A task's return value is the operation's result. Texts replace values that JSON can't hold
  (`progress_workers.values`). A result that is too large is left out. Reporting does not change the task's result in
  the queue.
- An exception fails the operation. `SystemExit` does too, because the queues count it as a failure. If the queue will
  run the task again, the operation stays open, and the next run is its next attempt.
- Revoking a task ends its operation as cancelled. Cancelling an operation stops its task; if the task has not begun, it
  does not run.
- If Redis can't be reached, the task is still enqueued and run, but not reported. The log says so.

An operation has one id and ends once. If a task runs again after its operation ended (it was requeued by hand, or
enqueued with an id that was used before), the run is not reported. If that operation was cancelled, the task does not
run.
"""
