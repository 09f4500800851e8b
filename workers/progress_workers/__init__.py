"""The worker SDK: report the progress of long work to people.

Set where Redis is (`PROGRESS_REDIS_URL`; without it, the embedded Redis on this machine is used), and report:

    >>> from progress_workers import Operation
    >>> rows = ["ada", "grace", "edsger"]
    >>> with Operation.start("import", total=len(rows), unit="rows", owner="alice") as op:
    ...     for row in op.track(rows):
    ...         op.log(f"imported {row}")
    ...         op.raise_if_cancelled()
    ...     op.succeed({"imported": 3})

The block decides how the operation ends. If the block ends normally, the operation succeeds. An exception ends the
operation as failed, with the exception's type and message, and is raised again. `raise_if_cancelled` raises `Cancelled`
after somebody asked the work to stop; this ends the operation as cancelled.

**Honest numbers.** `advance` counts, `track` counts a loop, and `skip` counts units that took no work. `update` reports
everything else: a message, a total that is known only now, metrics, a pool of workers. Rate and remaining time are
computed from the last 15 seconds of work; time before the first unit does not count. Work that has several parts names
them as stages. Their weights make up one percentage, which goes down only when there is more to do than was known:

    >>> with Operation.start("report") as op:
    ...     collect, render = op.stage("collect", weight=3, total=2), op.stage("render")
    ...     with collect:
    ...         for source in collect.track(["sales", "stock"]):
    ...             op.update(message=f"reading {source}")
    ...     with render:
    ...         op.update(metrics={"pages": 12})

A pipeline can report how many items are being processed, with `stage.update(in_flight=4)`, and which workers process
them:

    >>> from progress_workers import Pool, PoolWorker
    >>> with Operation.start("embed") as op:
    ...     busy = PoolWorker(id=1, status="processing", item="chunk-7", percent=10.0)
    ...     op.update(workers=Pool(active=1, max=8, queue_depth=3, workers=[busy]))

**Child operations** are parts that are operations of their own, in this process or another. Their weighted progress is
the progress of their parent. Cancelling the parent cancels its children. Another process joins an operation by its id:

    >>> with Operation.start("nightly") as op:
    ...     north, south = op.child("region", title="North"), op.child("region", title="South")
    ...     with Operation.attach(north.id) as part:  # in a process that received the id
    ...         part.update(current=9, total=9)
    ...     south.succeed()
    ...     north.ended, south.ended
    (False, True)

**Several threads and processes** may count on one operation, and what they count adds up: those of pools, whose
function is `op.wrap(function)`; forked processes, where `current()` is the operation; and processes that join with
`Operation.attach(id, end_on_exit=False)`, as spawned ones have to. An operation can't be pickled; pass its id.

**asyncio**: `AsyncOperation` has the same methods. A cancel also cancels the task that is inside the block.

    >>> import asyncio
    >>> from progress_workers import AsyncOperation
    >>> async def work():
    ...     async with AsyncOperation.start("import", total=1) as op:
    ...         op.advance(1)
    >>> asyncio.run(work())

**Libraries** do not need the operation as an argument, and do not need to know whether there is one. Outside an
operation, nothing happens.

    >>> from progress_workers import current, track
    >>> def polish(stones):
    ...     for stone in track(stones):
    ...         current().log(f"polished {stone}", level="debug")
    >>> polish(["agate"])
    >>> with Operation.start("jewelry") as op:
    ...     polish(["agate", "opal"])

**Never in the way.** Reporting never blocks, and no report raises an exception. Any object
may be returned, counted, logged or used as a name. Numbers that are not finite are ignored, values that JSON can't hold
are shown as readable texts, and values that are too large are left out. The operation's log and Python's `logging` then
say so, once (`python -m pydoc progress_workers.values` has the rules). `Operation.start` raises `InvalidInput` for an
invalid id, parent or lease, before anything is created. `sys.exit()` and `sys.exit(0)` end an operation as succeeded;
any other exit ends it as failed. SIGTERM ends the open operations of the process as cancelled, before it ends the
process, which takes two seconds at most. `PROGRESS_ON_SIGTERM` can make them `fail`, or `leave` them open. Nothing is
done if the program has a handler of its own for SIGTERM (it decides, for example by `sys.exit`), or in tasks of queues,
which know what becomes of the task. As Python runs signal
handlers in the main thread, a long call of C code there delays it.

A background thread sends the newest progress, at most ten times a second. While Redis is unavailable, it buffers
reports in bounded memory (10,000 lines or 4 MiB per operation), and the log says how many lines were dropped. Leaving
the block waits until everything is stored; while Redis is unavailable, it waits at most five seconds in total, however
many blocks are left. A start waits a second at most: then the work goes on, and the operation is created when Redis is
back, before its reports are sent. With `required=True`, it raises `StorageUnavailable` instead. `PROGRESS_DISABLED=1`
turns reporting off. With `PROGRESS_SPOOL_DIR`, reports that can't be sent are on disk, and outlast a worker that is
killed: the next start on the machine sends them.

**When a worker dies.** Another thread sends heartbeats, one every five seconds. If there is no heartbeat for `lease_s`
(15 s), the operation is shown as stalled. It runs again when its worker is back. After another minute it fails, as
`worker-lost`. If a single call runs C code for longer than that, without releasing the interpreter lock, the operation
needs a longer lease. To retry work, start it with `new_attempt=True`: this fences the earlier attempt. If another
attempt took the operation over, or if it was ended or deleted elsewhere, `cancelled` becomes true. `raise_if_cancelled`
and leaving the block then raise the reason: `Fenced`, `OperationEnded`, `NotFound` or `Gone`.

**Integrations** report without further code:

| | |
|---|---|
| functions | `@progress_workers.tracked` |
| `tqdm` bars | `from progress_workers.bars.tqdm import tqdm` |
| `rich.progress` bars | `from progress_workers.bars.rich import Progress, track` |
| `logging` | `progress_workers.LogHandler` |
| files that are read or written | `progress_workers.files.reading(file)`, `writing(file)` |
| commands | `progress_workers.run_process([...])`, `await run_process_async([...])`; `progress-broker run -- COMMAND` |
| Celery, RQ, Dramatiq, arq, taskiq | `progress_workers.queues.celery` and so on |
| unit tests, without Redis | `progress_workers.testing.recording()` |
"""

from typing import TYPE_CHECKING

from progress_broker.errors import (
    BrokerError,
    Fenced,
    Gone,
    InvalidInput,
    NotFound,
    OperationEnded,
    OperationExists,
    SetupError,
    StorageFull,
    StorageUnavailable,
    TooLarge,
)
from progress_workers.async_operation import AsyncOperation
from progress_workers.core.inbox import Signal
from progress_workers.current import current, track
from progress_workers.errors import Cancelled
from progress_workers.log_handler import LogHandler
from progress_workers.operation import Operation
from progress_workers.tracked import tracked
from progress_workers.transport.registry import flush
from progress_workers.values.pool import Pool, PoolWorker

if TYPE_CHECKING:
    from progress_workers.processes import ProcessFailed, ProcessTimedOut, run_process, run_process_async
else:

    def __getattr__(name: str) -> object:
        """Import the modules that run commands at their first use: most workers do not need these ten modules."""
        if name not in ("ProcessFailed", "ProcessTimedOut", "run_process", "run_process_async"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from progress_workers import processes

        return globals().setdefault(name, getattr(processes, name))


__all__ = [
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
]
