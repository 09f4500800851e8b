"""`failures`: what failed, in groups."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from progress_broker.model.operation import Operation, Status
from progress_broker.queries.choice import Order
from progress_broker.queries.fields import Pairs
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.options import READER, with_settings
from progress_cli.output import format
from progress_cli.output.formats import Column, Format, Output, Printer, Shape
from progress_cli.query_options import with_filters
from progress_client.backend import warn_if_partial

_PAGE = 200


class By(StrEnum):
    """What the groups are made by."""

    ERROR = "error"
    KIND = "kind"
    WORKER = "worker"
    OWNER = "owner"


@dataclass(slots=True)
class Group:
    """Operations that failed alike."""

    name: str
    number: int
    newest: Operation


_OF: dict[By, Callable[[Operation], object]] = {
    By.ERROR: lambda it: (it.error or {}).get("type"),
    By.KIND: lambda it: it.kind,
    By.WORKER: lambda it: it.worker,
    By.OWNER: lambda it: it.owner,
}


@with_settings(*READER)
@with_filters()
def failures(
    settings: Settings,
    query: Pairs,
    by: Annotated[By, typer.Option(help="What the groups are made by.")] = By.ERROR,
    output: Output = Format.TABLE,
) -> None:
    """Show what failed, in groups: how many, and the newest one with its message. Without a time, in the last hour.

    For example `progress-broker failures --kind import --since 1d --by worker`.
    """
    names = {name for name, _ in query}
    times = {"since", "until", "ended_since", "ended_until", "created_since", "created_until"}
    asked = (*query, *(() if "status" in names else (("status", Status.FAILED.value),)))
    asked = asked if names & times else (*asked, ("ended_since", "1h"))
    groups, now = asyncio.run(_groups(settings, asked, by))
    with Printer(_shape(by, now), output) as printer:
        for group in sorted(groups, key=lambda group: -group.number):
            printer.add(group)


async def _groups(settings: Settings, query: Pairs, by: By) -> tuple[list[Group], datetime]:
    groups: dict[str, Group] = {}
    cursor, told = None, False
    async with connect.operators(settings) as operators:
        while True:
            page = await operators.finder.page(query, order=Order.ENDED, limit=_PAGE, cursor=cursor)
            for operation in page.operations:
                value = _OF[by](operation)
                group = groups.setdefault("" if value is None else str(value), Group(str(value or ""), 0, operation))
                group.number += 1
            if page.lanes_away and not told:
                warn_if_partial(page.lanes_away)
                told = True
            cursor = page.next_cursor
            if cursor is None:
                return list(groups.values()), await operators.now()


def _shape(by: By, now: datetime) -> Shape[Group]:
    def message(group: Group) -> str:
        return str((group.newest.error or {}).get("message") or "")

    return Shape(
        columns=[
            Column(by.value.upper(), lambda it: it.name or "(none)"),
            Column("NUMBER", lambda it: it.number, format.number),
            Column("NEWEST", lambda it: it.newest.finished_at, lambda at: format.ago(at, now)),
            Column("EXAMPLE", lambda it: it.newest.id),
            Column("MESSAGE", message, lambda text: format.plain(text)[:100]),
        ],
        name=lambda it: it.newest.id,
        to_json=lambda it: {
            by.value: it.name or None,
            "number": it.number,
            "newest_at": it.newest.finished_at,
            "example": it.newest.id,
            "message": message(it) or None,
        },
    )
