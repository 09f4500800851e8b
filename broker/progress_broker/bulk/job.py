"""Verbs on many operations that run in a server: each is an operation itself, which can be watched and cancelled."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Self

from progress_broker.access.audit import Audit, AuditEntry
from progress_broker.bulk.carrying import Report, carry_out, in_lines
from progress_broker.bulk.verbs import Verb
from progress_broker.errors import BrokerError, Gone, NotFound, OperationEnded, StorageFull, StorageUnavailable
from progress_broker.model.entry import encode
from progress_broker.model.operation import NewOperation, Operation
from progress_broker.operations.store import Store
from progress_broker.runtime.tasks import end
from progress_broker.storage.lanes import shown

log = logging.getLogger(__name__)

LEASE_S = 15.0
RPS = 100.0
"""Operations a second of one job."""
MOST_FOR_ROOM = 1_000
"""How many operations are deleted where Redis is full before it has room for the job."""
_MOST_LINES = 100
"""Failures that the log of a job tells."""


class _Cancelled(Exception):
    """Somebody has cancelled the job."""


class Jobs:
    """The jobs that run in this process. Those that still run when it is closed end as failed."""

    def __init__(self, store: Store, audit: Audit | None = None) -> None:
        self._store, self._audit = store, audit or Audit()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(
        self,
        verb: Verb,
        groups: AsyncIterator[Sequence[str]],
        *,
        number: int,
        owner: str | None,
        away: set[int],
    ) -> Operation:
        """Begin to do it to `number` operations, about; return the operation that shows how far it is.

        `away` are the lanes that could not be reached, once that is known. Where Redis is full, a verb that frees
        memory begins before this returns, until there is room for the job. Raises `StorageFull` if there is none.
        """
        new = NewOperation(
            id=f"bulk-{verb.name}-{secrets.token_hex(8)}",
            kind=f"bulk-{verb.name}",
            title=f"{verb.name} {number:,} operations",
            owner=owner or None,
            lease_s=LEASE_S,
        )
        report = Report()
        try:
            operation, _ = await self._store.create(new)
        except StorageFull:
            if not verb.frees:
                raise
            operation = await self._make_room(new, verb, groups, report)
        job = _Job(self._store, self._audit, operation, verb, groups, number, away, report)
        task = asyncio.create_task(job.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return operation

    async def _make_room(
        self, new: NewOperation, verb: Verb, groups: AsyncIterator[Sequence[str]], report: Report
    ) -> Operation:
        """Do it to some of the operations, and create the job as soon as there is room for it."""
        async for group in groups:  # which the job goes on with
            try:
                await carry_out(verb.act, _only(group), rps=RPS, report=report)
            finally:
                await _record(self._audit, new.owner, verb, new.id or "", report)
            try:
                return (await self._store.create(new))[0]
            except StorageFull:
                if report.done >= MOST_FOR_ROOM:
                    break
        raise StorageFull(
            f"deleted {report.changed:,} of the operations, but Redis is still too full for a job that deletes the"
            " others: repeat the request if there are more, or increase the maxmemory of Redis"
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(*self._tasks)


class _Job:
    def __init__(
        self,
        store: Store,
        audit: Audit,
        operation: Operation,
        verb: Verb,
        groups: AsyncIterator[Sequence[str]],
        number: int,
        away: set[int],
        report: Report,
    ) -> None:
        self._store, self._audit, self._verb, self._groups = store, audit, verb, groups
        self._id, self._owner = operation.id, operation.owner
        self._number, self._away = number, away
        self._lines = 0
        self._report = report

    async def run(self) -> None:
        """Do it, and end the operation. Never raises but to be cancelled."""
        outcome: dict[str, object]
        try:
            await self._tell(self._report)
            await carry_out(self._verb.act, self._groups, rps=RPS, told=self._tell, report=self._report)
            outcome = {"status": "succeeded"}
            if self._away:
                outcome = _failed("partial", f"operations were left out: {shown(self._away)} could not be reached")
        except _Cancelled:
            outcome = {"status": "cancelled"}
        except asyncio.CancelledError:
            await self._end(_failed("server-stopped", "the server that ran it has stopped: repeat the request"))
            raise
        except BrokerError as error:
            outcome = _failed(error.code, error.detail)
        except Exception:
            log.exception("the job %s failed with an unexpected error", self._id)
            outcome = _failed("internal", "the server has failed: its log says why")
        await self._end(outcome)

    async def _tell(self, report: Report) -> None:
        """Publish how far it is, and new failures; raise `_Cancelled` if the job was cancelled."""
        settings = self._store.settings
        events = [
            encode("log", {"message": f"{it.operation}: {it.error.detail}"[:1000], "level": "error"}, settings)
            for it in report.failures[self._lines : _MOST_LINES]
        ]
        self._lines = len(report.failures)
        await _record(self._audit, self._owner, self._verb, self._id, report)
        total = max(self._number, report.done)
        events.append(encode("progress", {"current": report.done, "total": total, "unit": "operations"}, settings))
        try:
            published = await self._store.publish(self._id, events)
        except (OperationEnded, NotFound, Gone):  # ended by force, or deleted
            raise _Cancelled from None
        except (StorageUnavailable, StorageFull):  # what it does to others may still work
            return
        if published.cancel_requested:
            raise _Cancelled

    async def _end(self, outcome: dict[str, object]) -> None:
        report = self._report
        result = {"changed": report.changed, "skipped": report.skipped, "failed": report.failed}
        try:
            await self._store.publish(self._id, [encode("end", outcome | {"result": result}, self._store.settings)])
        except BrokerError as error:
            log.warning("the end of the job %s could not be stored: %s", self._id, error.detail)


async def _record(audit: Audit, who: str | None, verb: Verb, job: str, report: Report) -> None:
    """Record in the audit which operations have changed."""
    changed, report.ids = report.ids, []
    for ids in in_lines(changed):
        await audit.record(AuditEntry(who or "", "http", verb.name, ids, detail=job))


async def _only(group: Sequence[str]) -> AsyncIterator[Sequence[str]]:
    yield group


def _failed(type: str, message: str) -> dict[str, object]:
    return {"status": "failed", "error": {"type": type, "message": message}}
