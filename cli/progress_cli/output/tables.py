"""Operations for people: coloured tables in a terminal, aligned text in a pipe."""

import sys
from collections.abc import Iterator, Sequence

import typer
from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from progress_broker.model.operation import Children, Operation, Status
from progress_cli.output import format

_COLUMNS = ("ID", "KIND", "STATUS", "PROGRESS", "OWNER", "CHANGED", "TITLE")


def listing(operations: Sequence[Operation]) -> None:
    """Print operations as a table."""
    rows = [_row(operation) for operation in operations]
    if not sys.stdout.isatty():
        for line in aligned([_COLUMNS, *rows]):
            typer.echo(line)
        return
    table = Table(*_COLUMNS, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns[:-1]:
        column.no_wrap = True
    for operation, row in zip(operations, rows, strict=True):
        style = format.STYLES[operation.status]
        cells = zip(_COLUMNS, row, strict=True)
        table.add_row(*(Text(cell, style if column == "STATUS" else "") for column, cell in cells))
    Console().print(table if rows else Text("no operations", "dim"))


def card(operation: Operation) -> None:
    """Print all details of one operation."""
    facts = list(_facts(operation))
    if not sys.stdout.isatty():
        for line in aligned(facts):
            typer.echo(line)
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    for name, value in facts:
        grid.add_row(name, Text(value, format.STYLES[operation.status] if name == "status" else ""))
    Console().print(Panel(grid, title=Text(operation.title or operation.id), title_align="left", expand=False))


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows as lines, each cell padded to its column's width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(operation: Operation) -> tuple[str, ...]:
    cells = (
        operation.id,
        operation.kind,
        operation.status,
        format.progress(operation.progress, message=False),
        operation.owner or "",
        format.ago(operation.updated_at),
        operation.title or "",
    )
    return tuple(format.plain(cell) for cell in cells)


def _facts(operation: Operation) -> Iterator[tuple[str, str]]:
    progress = operation.progress or {}
    named = {
        "id": operation.id,
        "kind": operation.kind,
        "title": operation.title,
        "owner": operation.owner,
        "tags": ", ".join(operation.tags),
        "parent": operation.parent,
        "status": operation.status.value,
        **_worker(operation),
        "progress": format.progress(operation.progress),
        "outcome": format.outcome(operation),
        "created": format.stamp(operation.created_at),
        "started": format.stamp(operation.started_at),
        "changed": format.stamp(operation.updated_at),
        "finished": format.stamp(operation.finished_at),
        "events": f"{operation.events}, last position {operation.position}",
    }
    yield from ((name, format.plain(value)) for name, value in named.items() if value)
    stages = progress.get("stages")
    for stage in stages if isinstance(stages, list) else ():
        if isinstance(stage, dict):
            status, fields = format.plain(stage.get("status", "pending")), format.progress(stage, message=False)
            yield "stage", f"{format.plain(stage.get('name'))}: {status}  {fields}".rstrip()
    yield from _children(operation)
    metrics = progress.get("metrics")
    if isinstance(metrics, dict):
        yield from (("metric", f"{format.plain(name)}: {format.number(value)}") for name, value in metrics.items())


def _children(operation: Operation) -> Iterator[tuple[str, str]]:
    """Yield the totals of the children, and each child that is listed."""
    children = operation.children
    if children is None:
        return
    counts = {"done": children.done, "failed": children.failed, "cancelled": children.cancelled}
    counts["running"] = children.running
    fields = ", ".join(f"{format.number(count)} {name}" for name, count in counts.items() if count)
    yield "children", "  ".join(filter(None, (format.number(children.total), f"{children.percent:.1f} %", fields)))
    listed = children.operations if isinstance(children, Children) else []
    for child in listed:
        yield "child", f"{child.id}: {child.status}  {format.progress(child.progress)}".rstrip()
    if len(listed) < children.total:
        yield (
            "child",
            f"… {format.number(children.total - len(listed))} more: progress-broker ls --parent {operation.id}",
        )


def _worker(operation: Operation) -> dict[str, str | None]:
    """Return the worker of an operation, and the requests to it."""
    fields = {"worker": operation.worker, "attempt": str(operation.attempt) if operation.attempt > 1 else None}
    if operation.status is Status.STALLED:
        fields["stalled"] = f"no heartbeat from its worker since {format.stamp(operation.updated_at)}"
    if operation.cancel is not None:
        fields["cancel"] = f"{format.describe_cancel(operation.cancel)}; {format.stamp(operation.cancel.requested_at)}"
        if format.ignored(operation):
            fields["overdue"] = f"its worker should have stopped at {format.stamp(operation.cancel.overdue_at)}"
    return fields
