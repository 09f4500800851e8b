"""Operations for people: coloured tables in a terminal, aligned text in a pipe."""

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from progress_broker.model.operation import Children, Operation, Status
from progress_cli.output import format

_COLUMNS = ("ID", "KIND", "STATUS", "PROGRESS", "OWNER", "CHANGED", "TITLE")
_OPTIONAL = ("OWNER", "KIND", "CHANGED", "TITLE")
"""The columns that a narrow terminal does not show. The first one is left out first."""
_GAP = 2
_LEAST = 12
"""The least width of a title, and of an id that is wrapped."""


def listing(operations: Sequence[Operation], now: datetime) -> None:
    """Print operations as a table. `now` is by Redis' clock."""
    rows = [_row(operation, now) for operation in operations]
    if not sys.stdout.isatty():
        for line in aligned([_COLUMNS, *rows]):
            typer.echo(line)
        return
    console = Console()
    if not rows:
        console.print("no operations", style="dim")
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, _GAP - 1, 0, 0), pad_edge=False)
    widths = _widths(rows, console.width)
    for name, width in widths.items():
        table.add_column(name, width=width, no_wrap=name == "TITLE", overflow="ellipsis" if name == "TITLE" else "fold")
    for operation, row in zip(operations, rows, strict=True):
        style = format.STYLES[operation.status]
        cells = zip(_COLUMNS, row, strict=True)
        table.add_row(*(Text(cell, style if name == "STATUS" else "") for name, cell in cells if name in widths))
    console.print(table)


def _widths(rows: Sequence[Sequence[str]], most: int) -> dict[str, int]:
    """Return the columns to show with their widths: those that are not empty, as many as a terminal has room for.

    A status is never cut or wrapped, and an id is wrapped only if the terminal has no room for it beside the progress.
    """
    widths = {name: max(map(cell_len, cells)) for name, *cells in zip(_COLUMNS, *rows, strict=True)}
    shown = {name: max(width, len(name)) for name, width in widths.items() if width}
    for name in _OPTIONAL:
        if _whole_width(shown | {"TITLE": min(shown["TITLE"], _LEAST)} if "TITLE" in shown else shown) <= most:
            break
        shown.pop(name, None)
    parts = (part for row in rows for part in row[_COLUMNS.index("PROGRESS")].split("  "))
    for name, least in (("TITLE", _LEAST), ("PROGRESS", max(map(cell_len, ("PROGRESS", *parts)))), ("ID", _LEAST)):
        if name in shown:
            excess = max(0, _whole_width(shown) - most)
            shown[name] = max(shown[name] - excess, min(shown[name], least))
    return shown


def _whole_width(columns: dict[str, int]) -> int:
    return sum(columns.values()) + _GAP * (len(columns) - 1)


def card(operation: Operation, now: datetime) -> None:
    """Print all details of one operation. `now` is by Redis' clock."""
    facts = list(_facts(operation, now))
    if not sys.stdout.isatty():
        for line in aligned(facts):
            typer.echo(line)
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    for name, value in facts:
        grid.add_row(name, Text(value, format.STYLES[operation.status] if name == "status" else ""))
    Console().print(Panel(grid, title=Text(operation.title or operation.id), title_align="left", expand=False))


def print_rows(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows as a table in a terminal; cells that it has no room for are wrapped."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, _GAP - 1, 0, 0), pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows as lines, each cell padded to its column's width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(operation: Operation, now: datetime) -> tuple[str, ...]:
    cells = (
        operation.id,
        operation.kind,
        operation.status,
        format.progress(operation.progress, operation.status, message=False),
        operation.owner or "",
        format.ago(operation.updated_at, now),
        operation.title or "",
    )
    return tuple(format.plain(cell) for cell in cells)


def _facts(operation: Operation, now: datetime) -> Iterator[tuple[str, str]]:
    progress = operation.progress or {}
    named = {
        "id": operation.id,
        "kind": operation.kind,
        "title": operation.title,
        "owner": operation.owner,
        "tags": ", ".join(operation.tags),
        "parent": operation.parent,
        "status": operation.status.value,
        **_worker(operation, now),
        "progress": format.progress(operation.progress, operation.status),
        "outcome": format.outcome(operation),
        "created": format.stamp(operation.created_at, now),
        "started": format.stamp(operation.started_at, now),
        "changed": format.stamp(operation.updated_at, now),
        "finished": format.stamp(operation.finished_at, now),
        "elapsed": "" if operation.elapsed_ms is None else format.duration(operation.elapsed_ms / 1000),
        "events": f"{operation.events}, last position {operation.position}",
    }
    yield from ((name, format.plain(value)) for name, value in named.items() if value)
    stages = progress.get("stages")
    for stage in stages if isinstance(stages, list) else ():
        if isinstance(stage, dict):
            status = format.plain(stage.get("status", "pending"))
            fields = format.progress(stage, status, message=False)
            yield "stage", f"{format.plain(stage.get('name'))}: {status}  {fields}".rstrip()
    yield from _traceback(operation.error or {})
    yield from _children(operation)
    for name, value in operation.metadata.items():
        yield (
            "metadata",
            f"{format.plain(name)}: {format.plain(value if isinstance(value, str) else format.compact(value))}",
        )
    metrics = progress.get("metrics")
    if isinstance(metrics, dict):
        yield from (("metric", f"{format.plain(name)}: {format.number(value)}") for name, value in metrics.items())


def _traceback(error: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the lines of an error's traceback, and its causes with theirs."""
    traceback, cause = error.get("traceback"), error.get("cause")
    if isinstance(traceback, str):
        yield from (("traceback", format.plain(line)) for line in traceback.split("\n"))
    if isinstance(cause, dict):
        yield "cause", format.failure(cause)
        yield from _traceback(cause)


def _children(operation: Operation) -> Iterator[tuple[str, str]]:
    """Yield the totals of the children, and each child that is listed."""
    children = operation.children
    if children is None:
        return
    counts = {"done": children.done, "failed": children.failed, "cancelled": children.cancelled}
    counts["running"] = children.running
    fields = ", ".join(f"{format.number(count)} {name}" for name, count in counts.items() if count)
    percent = "" if children.percent is None else format.percentage(children.percent)
    partial = "(others can't be reached now)" if children.partial else ""
    yield "children", "  ".join(filter(None, (format.number(children.total), percent, fields, partial)))
    listed = children.operations if isinstance(children, Children) else []
    for child in listed:
        yield "child", f"{child.id}: {child.status}  {format.progress(child.progress, child.status)}".rstrip()
    if len(listed) < children.total:
        yield (
            "child",
            f"… {format.number(children.total - len(listed))} more: progress-broker ls --parent {operation.id}",
        )


def _worker(operation: Operation, now: datetime) -> dict[str, str | None]:
    """Return the worker of an operation, and the requests to it."""
    fields = {"worker": operation.worker, "attempt": str(operation.attempt) if operation.attempt > 1 else None}
    if operation.status is Status.STALLED:
        fields["stalled"] = f"no heartbeat from its worker since {format.stamp(operation.updated_at, now)}"
    if operation.cancel is not None:
        requested = format.stamp(operation.cancel.requested_at, now)
        fields["cancel"] = f"{format.describe_cancel(operation.cancel)}; {requested}"
        if format.ignored(operation, now):
            fields["overdue"] = f"its worker should have stopped at {format.stamp(operation.cancel.overdue_at, now)}"
    return fields
