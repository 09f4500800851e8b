"""Starts or joins an operation. If the broker does not answer soon, that happens later, and the work goes on."""

import re
import time
from typing import Any

from progress_broker.errors import NotFound
from progress_broker.model.operation import OPERATION_ID
from progress_broker.settings import Settings
from progress_workers.core.opening import Opening
from progress_workers.core.reporter import INTERVAL_S, Reporter
from progress_workers.lifecycle.create import described
from progress_workers.lifecycle.handle import Handle
from progress_workers.lifecycle.settings import is_required, working_settings
from progress_workers.lifecycle.worker_name import worker_name
from progress_workers.transport.registry import link_to
from progress_workers.values import brief, number


def start(
    kind: str,
    *,
    total: float | None = None,
    unit: str | None = None,
    settings: Settings | None = None,
    required: bool | None = None,
    new_attempt: bool = False,
    worker: str | None = None,
    interval_s: float = INTERVAL_S,
    **fields: Any,
) -> Handle:
    """Create an operation, or find it if it already exists with the same values, and mark it as running."""
    settings = working_settings(settings, required)
    name = worker_name(worker)
    opening, warnings = described(kind, settings, **fields)
    now_s = int(time.time() * 1000) / 1000  # Redis notes milliseconds
    opening = opening._replace(new_attempt=bool(new_attempt), worker=name, cancel_counts_from_s=now_s)
    return _open(opening, settings, required, interval_s, warnings, total=total, unit=unit, worker=name)


def attach(
    operation: str,
    *,
    settings: Settings | None = None,
    required: bool | None = None,
    new_attempt: bool = False,
    worker: str | None = None,
    interval_s: float = INTERVAL_S,
    end_on_exit: bool = True,
) -> Handle:
    """Join an existing operation and continue from its progress."""
    if type(operation) is not str or re.fullmatch(OPERATION_ID, operation) is None:
        raise NotFound(f"the operation {brief(operation)} does not exist, because its id is not valid")
    settings = working_settings(settings, required)
    name = worker_name(worker)
    opening = Opening(operation, new_attempt=bool(new_attempt), worker=name, cancel_counts_from_s=None)
    shown = name if end_on_exit or worker else ""
    return _open(opening, settings, required, interval_s, [], worker=shown, end_on_exit=end_on_exit)


def adopt(kind: str, *, cancel_counts_from_s: float, **fields: Any) -> Handle:
    """Begin a new attempt at an operation that another process may have created, with whatever values."""
    settings, name = working_settings(None, None), worker_name(None)
    opening, warnings = described(kind, settings, **fields)
    opening = opening._replace(adopts=True, new_attempt=True, worker=name, cancel_counts_from_s=cancel_counts_from_s)
    return _open(opening, settings, None, INTERVAL_S, warnings, worker=name)


def _open(
    opening: Opening,
    settings: Settings,
    required: bool | None,
    interval_s: object,
    warnings: list[tuple[str, str]],
    *,
    worker: str,
    total: object = None,
    unit: str | None = None,
    end_on_exit: bool = True,
) -> Handle:
    plain_total, plain_interval_s = _numbers(total, interval_s, warnings)
    link = link_to(settings)
    reporter = Reporter(
        opening.operation,
        settings,
        total=plain_total,
        unit=unit,
        opening=opening,
        joins=not end_on_exit,
        worker=worker,
        lease_s=opening.new.lease_s if opening.new else None,
        interval_s=plain_interval_s,
        wake=link.wake,
    )
    link.open(reporter, required=is_required(required, settings))
    for subject, said in warnings:
        reporter.complaints.add(subject, said)
    return Handle(link, reporter, settings, end_on_exit)


def _numbers(total: object, interval_s: object, warnings: list[tuple[str, str]]) -> tuple[float | None, float]:
    """Return a valid total and interval; add warnings about invalid ones, by name."""
    of = number(total)
    if total is not None and of is None:
        warnings.append(("total", f"the total {brief(total)} was ignored; expected a finite number"))
    every_s = number(interval_s)
    if every_s is None or every_s < 0:
        warnings.append(
            (
                "interval_s",
                f"the interval_s {brief(interval_s)} was ignored; expected a number of seconds, 0 or greater",
            )
        )
        every_s = INTERVAL_S
    return of, every_s
