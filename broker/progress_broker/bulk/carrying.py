"""Does something to many operations, not too fast, and counts what came of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from progress_broker.access.audit import LONGEST
from progress_broker.bulk.verbs import Act
from progress_broker.errors import (
    BrokerError,
    Gone,
    NotFound,
    OperationEnded,
    StorageFull,
    StorageUnavailable,
)

AT_ONCE = 25
"""Operations that are acted on at the same time."""
MOST_FAILURES = 100
"""How many failures are told, with their operations."""

_NOTHING_TO_DO = (NotFound, Gone, OperationEnded)


class Failure(NamedTuple):
    """An operation to which it could not be done, and why."""

    operation: str
    error: BrokerError


@dataclass(slots=True)
class Report:
    """What came of it."""

    done: int = 0
    """Operations that were acted on: the sum of the next three."""
    changed: int = 0
    skipped: int = 0
    """There was nothing to do: they had changed so already, had ended, or were gone."""
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)
    """The first of those that failed."""
    ids: list[str] = field(default_factory=list)
    """Operations that changed and were not taken from here yet, for the audit."""


async def carry_out(
    act: Act,
    groups: AsyncIterator[Sequence[str]],
    *,
    rps: float,
    most: int | None = None,
    told: Callable[[Report], Awaitable[None]] | None = None,
    report: Report | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> Report:
    """Do it to each operation, `rps` of them a second at most, and to `most` in all; return what came of it.

    `told` is awaited after each few operations. A `report` that is passed is added to, also if this raises. To repeat
    it is safe: those that have changed are skipped.
    Raises `StorageUnavailable` or `StorageFull` if no operation of a group could be reached.
    """
    report, due = Report() if report is None else report, clock()
    async for group in groups:
        for at in range(0, len(group), AT_ONCE):
            some = group[at : at + AT_ONCE][: None if most is None else most - report.done]
            if not some:
                return report
            if (early_s := due - clock()) > 0:
                await sleep(early_s)
            due = max(due, clock()) + len(some) / rps
            outcomes = await asyncio.gather(*(_one(act, operation) for operation in some))
            _count(report, some, outcomes)
            if told is not None:
                await told(report)
            away = [it for it in outcomes if isinstance(it, StorageUnavailable | StorageFull)]
            if len(away) == len(some):
                raise away[0]
    return report


async def _one(act: Act, operation: str) -> bool | BrokerError:
    try:
        return await act(operation)
    except BrokerError as error:
        return error


def _count(report: Report, operations: Sequence[str], outcomes: Sequence[bool | BrokerError]) -> None:
    for operation, outcome in zip(operations, outcomes, strict=True):
        report.done += 1
        if outcome is True:
            report.changed += 1
            report.ids.append(operation)
        elif outcome is False or isinstance(outcome, _NOTHING_TO_DO):
            report.skipped += 1
        else:
            report.failed += 1
            if len(report.failures) < MOST_FAILURES:
                report.failures.append(Failure(operation, outcome))


def in_lines(ids: Sequence[str]) -> Iterator[str]:
    """Yield the ids, separated by commas, in texts that are short enough for an entry of the audit."""
    line = ""
    for id in ids:
        if len(line) + len(id) >= LONGEST:
            yield line
            line = ""
        line = f"{line},{id}" if line else id
    if line:
        yield line
