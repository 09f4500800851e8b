"""The worker SDK: tell people how your long work is going.

Say where Redis is (`PROGRESS_REDIS_URL`; without it the embedded one on this machine is found) and report:

    >>> from progress_workers import Operation
    >>> rows = ["ada", "grace", "edsger"]
    >>> with Operation.start("import", total=len(rows), unit="rows", owner="alice") as op:
    ...     for row in op.track(rows):
    ...         op.log(f"imported {row}")
    ...         op.raise_if_cancelled()
    ...     op.succeed({"imported": 3})

The block decides how the operation ends. Left normally it has succeeded; an exception ends it as failed, with its
type and message, and is raised on. `raise_if_cancelled` raises `Cancelled` once somebody asked the work to stop,
and that ends it as cancelled.

**Honest numbers.** `advance` counts, `track` counts a loop, `skip` counts what took no work, `update` says anything
else: a message, a total that is known only now, metrics, a pool of workers. Rate and remaining time are those of the
last 15 seconds. Work in parts names its stages, and their weights make up one percentage, which never goes back:

    >>> with Operation.start("report") as op:
    ...     collect, render = op.stage("collect", weight=3, total=2), op.stage("render")
    ...     with collect:
    ...         for source in collect.track(["sales", "stock"]):
    ...             op.update(message=f"reading {source}")
    ...     with render:
    ...         op.update(metrics={"pages": 12})

A pipeline is told in full: `stage.update(in_flight=4)`, and who works on it:

    >>> from progress_workers import Pool, PoolWorker
    >>> with Operation.start("embed") as op:
    ...     busy = PoolWorker(id=1, status="processing", item="chunk-7", percent=10.0)
    ...     op.update(workers=Pool(active=1, max=8, queue_depth=3, workers=[busy]))

**Parts that are operations** of their own, in this process or another, are children: their weighted progress is their
parent's, and who cancels the parent cancels them. Another process joins one by its id:

    >>> with Operation.start("nightly") as op:
    ...     north, south = op.child("region", title="North"), op.child("region", title="South")
    ...     with Operation.attach(north.id) as part:  # in a process that was sent the id
    ...         part.update(current=9, total=9)
    ...     south.succeed()
    ...     north.ended, south.ended
    (False, True)

**asyncio**: `AsyncOperation` has the same names. A cancel also cancels the task that is in the block.

    >>> import asyncio
    >>> from progress_workers import AsyncOperation
    >>> async def work():
    ...     async with AsyncOperation.start("import", total=1) as op:
    ...         op.advance(1)
    >>> asyncio.run(work())

**Libraries** need not be handed the operation, nor know whether there is one: outside one, nothing happens.

    >>> from progress_workers import current, track
    >>> def polish(stones):
    ...     for stone in track(stones):
    ...         current().log(f"polished {stone}", level="debug")
    >>> polish(["agate"])
    >>> with Operation.start("jewelry") as op:
    ...     polish(["agate", "opal"])

**Never in the way.** Reporting never waits, and once an operation has started, nothing that is said of it raises.
Whatever is returned, counted, logged or used as a name may be any object: numbers that are not finite are ignored, what
JSON can't hold is shown as a readable text, what is too large is left out, and the operation's log and Python's say so,
once (`python -m pydoc progress_workers.values` has the rules). `Operation.start` raises `Invalid` for an id, a parent
or a lease that can't be, before anything is created. `sys.exit()` and `sys.exit(0)` end an operation as succeeded, any
other exit ends it as failed.

A thread in the background sends the newest progress ten times a second at most. While Redis is away it holds the rest
back in bounded memory (10,000 lines or 4 MiB an operation), and says when lines had to be dropped. Leaving the block
waits until everything is stored; while Redis is away, up to five seconds in all, however many blocks are left. Only
starting needs Redis to be there.

**When a worker dies.** Another thread says every five seconds that this one is alive. Silent for `lease_s` (15 s), the
operation is shown as stalled, and runs again when its worker is back; after another minute it has failed, as
`worker-lost`. Work that one call keeps busy in C for longer than that, without releasing the interpreter, needs a
longer lease. What is tried again is begun with `new_attempt=True`: the earlier attempt is fenced. If another attempt
took the operation over, or it was ended or deleted elsewhere, `cancelled` turns true, and `raise_if_cancelled` and
leaving the block raise which it was: `Fenced`, `OperationEnded`, `NotFound`, `Gone`.

**What you have already** reports by itself:

| | |
|---|---|
| functions | `@progress_workers.tracked` |
| `tqdm` bars | `from progress_workers.bars.tqdm import tqdm` |
| `rich.progress` bars | `from progress_workers.bars.rich import Progress, track` |
| `logging` | `progress_workers.LogHandler` |
| files that are read or written | `progress_workers.files.reading(file)`, `writing(file)` |
| commands | `progress_workers.run_process([...])`, or `progress-broker run -- COMMAND` in a shell |
| Celery, RQ, Dramatiq, arq, taskiq | `progress_workers.queues.celery` and so on |
| unit tests, without Redis | `progress_workers.testing.recording()` |
"""

from typing import TYPE_CHECKING

from progress_broker.errors import (
    BrokerError,
    Fenced,
    Gone,
    Invalid,
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
    from progress_workers.processes import ProcessFailed, run_process
else:

    def __getattr__(name: str) -> object:
        """Import what runs commands when it is first used: most workers run none, and it is ten modules."""
        if name not in ("ProcessFailed", "run_process"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from progress_workers import processes

        return globals().setdefault(name, getattr(processes, name))


__all__ = [
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
]
