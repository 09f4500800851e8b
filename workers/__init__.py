"""The worker SDK: tell people how your long work is going.

Say where Redis is (`PROGRESS_REDIS_URL`; without it the embedded one on this machine is found) and report:

    from workers import Operation

    with Operation.start("import", total=3, unit="rows", owner="alice") as op:
        for row in op.track(["ada", "grace", "edsger"]):
            op.log(f"imported {row}")
            op.raise_if_cancelled()
        op.succeed({"imported": 3})

The block decides how the operation ends. Left normally it has succeeded; an exception ends it as failed, with its
type and message, and is raised on. `raise_if_cancelled` raises `Cancelled` once somebody asked the work to stop,
and that ends it as cancelled. Work in parts names its stages, and their weights make up one percentage:

    with Operation.start("report") as op:
        collect, render = op.stage("collect", weight=3, total=2), op.stage("render")
        with collect:
            for source in collect.track(["sales", "stock"]):
                op.update(message=f"reading {source}")
        with render:
            op.update(metrics={"pages": 12})

`AsyncOperation` has the same names:

    from workers import AsyncOperation

    async def work():
        async with AsyncOperation.start("import", total=1) as op:
            op.advance(1)

    import asyncio
    asyncio.run(work())

Reporting never waits and never fails because Redis is away: a thread in the background sends the newest progress ten
times a second at most, holds the rest back in bounded memory, and says when log lines had to be dropped. Leaving the
block waits up to five seconds until everything is stored. Only starting needs Redis to be there.

If another attempt takes the operation over, or it is ended or deleted elsewhere, `cancelled` turns true, and
`raise_if_cancelled` and leaving the block raise which it was: `Fenced`, `OperationEnded`, `NotFound`, `Gone`.
"""

from broker.errors import (
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
from workers.errors import Cancelled
from workers.link import flush
from workers.operation import AsyncOperation, Operation

__all__ = [
    "AsyncOperation",
    "BrokerError",
    "Cancelled",
    "Fenced",
    "Gone",
    "Invalid",
    "NotFound",
    "Operation",
    "OperationEnded",
    "OperationExists",
    "SetupError",
    "StorageFull",
    "StorageUnavailable",
    "TooLarge",
    "flush",
]
