"""Follows many operations at a time, each event as a line with the operation's id before it."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import NamedTuple
from zlib import crc32

import typer

from progress_broker.errors import BrokerError, Gone, InvalidInput, NotFound
from progress_broker.history.choosing import LEVELS
from progress_broker.model.operation import Status
from progress_broker.queries.choice import Order
from progress_broker.queries.fields import Pairs
from progress_broker.queries.filters import UNFINISHED
from progress_broker.runtime.tasks import end
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.exit_codes import exit_code, print_error, print_info
from progress_cli.output import format
from progress_cli.output.live import standing
from progress_client.async_client import AsyncClient
from progress_client.events import Event, Log, Reset, Snapshot
from progress_client.operators.finding import Finder

LOOK_S = 2.0
"""How often new operations are looked for."""
_PAGE = 200
_COLOURS = ("cyan", "green", "magenta", "blue", "yellow", "bright_cyan", "bright_green", "bright_magenta")


class Shown(NamedTuple):
    """Which events are shown, and how."""

    types: frozenset[str] | None = None
    level: str | None = None
    pattern: re.Pattern[str] | None = None
    as_json: bool = False

    def has(self, event: Event, line: str) -> bool:
        """Return whether an event is shown. `line` is what it says."""
        if self.level is not None and isinstance(event, Log):
            given = event.level if event.level in LEVELS else "info"
            if LEVELS.index(given) < LEVELS.index(self.level):
                return False
        return self.pattern is None or self.pattern.search(line) is not None


def pattern_of(text: str | None) -> re.Pattern[str] | None:
    """Return a regular expression; raise `InvalidInput`."""
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise InvalidInput(f"--grep {text!r} is no regular expression: {error}", field="grep") from None


async def follow_many(
    settings: Settings, ids: tuple[str, ...], query: Pairs, shown: Shown, *, on: bool, most: int, after: str | None
) -> int:
    """Follow operations to their ends, and with `on` also those that come; return the exit code."""
    async with connect.operators(settings) as operators, connect.client(settings) as client:
        following = _Following(client, shown, most, after)
        try:
            if ids:
                following.add(ids)
            else:
                following.add([id async for id in _found(operators.finder, query, most)])
                while on:
                    await asyncio.sleep(LOOK_S)
                    following.check()
                    following.add([id async for id in _found(operators.finder, query, most)])
            if not following.tasks:
                print_info("no operation matches: with --follow, those that come are shown")
            return await following.ended()
        finally:
            await end(*following.tasks.values())


async def _found(finder: Finder, query: Pairs, most: int) -> AsyncIterator[str]:
    """Yield the ids of operations that match, and have not ended unless the query says so: one more than the most."""
    statuses = () if any(name == "status" for name, _ in query) else (("status", it.value) for it in sorted(UNFINISHED))
    asked, cursor, left = (*query, *statuses), None, most + 1
    while left > 0:
        page = await finder.page(asked, order=Order.CREATED, limit=min(_PAGE, left), cursor=cursor)
        for operation in page.operations:
            yield operation.id
        left, cursor = left - len(page.operations), page.next_cursor
        if cursor is None:
            return


class _Following:
    """The operations that are followed."""

    def __init__(self, client: AsyncClient, shown: Shown, most: int, after: str | None) -> None:
        self.tasks: dict[str, asyncio.Task[BrokerError | None]] = {}
        self._client, self._shown, self._most, self._after = client, shown, most, after
        self._told = False

    def add(self, ids: "list[str] | tuple[str, ...]") -> None:
        """Follow these, too, as far as there is room."""
        new = [id for id in ids if id not in self.tasks]
        room = self._most - sum(not task.done() for task in self.tasks.values())
        if len(new) > room and not self._told:
            self._told = True
            print_info(f"{self._most} operations are followed, others are not: follow more with --max")
        for id in new[:room]:
            self.tasks[id] = asyncio.create_task(self._follow(id))

    def check(self) -> None:
        """Raise what is no error of an operation, such as that the reader of the output has closed it."""
        for task in self.tasks.values():
            if task.done():
                task.result()

    async def ended(self) -> int:
        """Wait until all have ended; return the exit code."""
        failed = [error for error in await asyncio.gather(*self.tasks.values()) if error is not None]
        return exit_code(failed[0]) if failed else 0

    async def _follow(self, id: str) -> BrokerError | None:
        status = ""
        try:
            async with aclosing(self._client.watch(id, after=self._after, types=self._shown.types)) as events:
                async for event in events:
                    self._show(id, event, status)
                    is_state = isinstance(event, Snapshot | Reset)
                    status = event.state.status if is_state else format.status(event) or status  # type: ignore[union-attr]
        except BrokerError as error:
            print_error(f"{id}: {error.detail}")
            return None if isinstance(error, NotFound | Gone) and self._told else error
        return None

    def _show(self, id: str, event: Event, status: str) -> None:
        if isinstance(event, Snapshot | Reset):
            line = standing(event).partition(": ")[2]
        else:
            line = f"{format.plain(event.type):<8}  {format.describe(event, Status(status) if status else '')}"
        if not self._shown.has(event, line):
            return
        if self._shown.as_json:
            sys.stdout.buffer.write(event.json.rstrip(b"\n") + b"\n")
            sys.stdout.buffer.flush()
            return
        name = typer.style(id, fg=_COLOURS[crc32(id.encode()) % len(_COLOURS)])  # without a terminal it stays plain
        typer.echo(f"{name}  {format.time_of(event).isoformat(timespec='milliseconds')}  {line}")
