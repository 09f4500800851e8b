"""`monitor`: follow the log of a server."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Annotated, Any

import orjson
import typer

from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.options import READER, with_settings
from progress_cli.output import format

_FIRST = ("time", "level", "logger", "message")


@with_settings(*READER)
def monitor(
    settings: Settings,
    level: Annotated[
        str, typer.Option(help="Only lines of this level and above: debug, info, warning, error.")
    ] = "info",
    logger: Annotated[str, typer.Option(help="Only lines of this logger and those below it.")] = "",
    last: Annotated[int, typer.Option(min=0, max=1_000, help="How many lines to begin with.")] = 20,
    count: Annotated[int, typer.Option("-n", min=0, help="How many lines to print; 0: until Ctrl-C.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: one object per line.")] = False,
) -> None:
    """Follow the log of the server at PROGRESS_URL: of the replica that answers, if there are several.

    It needs a server: in Redis there is no log.
    """
    asyncio.run(_follow(settings, {"level": level, "logger": logger, "last": str(last)}, count, as_json=as_json))


async def _follow(settings: Settings, query: dict[str, str], count: int, *, as_json: bool) -> None:
    printed, given = 0, {name: value for name, value in query.items() if value}
    async with connect.operators(settings) as operators, aclosing(operators.admin.monitor(given)) as lines:
        async for line in lines:
            typer.echo(orjson.dumps(line).decode() if as_json else _shown(line))
            printed += 1
            if printed == count:
                return


def _shown(line: Mapping[str, Any]) -> str:
    time, level, logger, message = (format.plain(line.get(name, "")) for name in _FIRST)
    return f"{time} {level.upper()}: {logger}: {message}"
