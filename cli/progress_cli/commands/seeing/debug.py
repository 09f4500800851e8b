"""`debug`: collect what helps to find out what is wrong, into files of a folder."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from pydantic import BaseModel, SecretStr

from progress_broker.access.audit import AuditFilter
from progress_broker.errors import BrokerError, InvalidInput
from progress_broker.replicas.streams import MOST, StreamFilter
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.exit_codes import print_info
from progress_cli.options import READER, with_settings
from progress_client.operators.operators import Operators

_SAMPLE = 1_000
_ENTRIES = 500


@with_settings(*READER)
def debug(
    settings: Settings,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that does not exist yet.")],
) -> None:
    """Collect what helps to find out what is wrong, into files of a folder: no secrets and no events of operations.

    It has replicas, figures, streams, workers, what takes room, the audit, and the settings of this command. What can't
    be read is told in its file.
    """
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise InvalidInput(
            f"can't make the folder {folder}: {error.strerror}: choose one that does not exist"
        ) from None
    asyncio.run(_collect(settings, folder))
    typer.echo(f"{folder} has {len(list(folder.iterdir()))} files: look through them before you give them to others")


async def _collect(settings: Settings, folder: Path) -> None:
    _write(folder / "settings.json", {name: _shown(value) for name, value in settings})
    async with connect.operators(settings) as operators:
        for name, read in _parts(operators).items():
            try:
                found: Any = await read()
            except BrokerError as error:
                print_info(f"{name}: {error.detail}")
                found = {"error": error.code, "detail": error.detail}
            _write(folder / f"{name}.json", found.model_dump(mode="json") if isinstance(found, BaseModel) else found)


def _parts(operators: Operators) -> dict[str, Callable[[], Awaitable[Any]]]:
    return {
        "replicas": operators.admin.replicas,
        "stats": operators.admin.stats,
        "workers": operators.admin.workers,
        "storage": lambda: operators.admin.storage(_SAMPLE),
        "streams": lambda: operators.admin.streams(StreamFilter(), limit=MOST, cursor=None),
        "audit": lambda: operators.admin.audit(AuditFilter(), limit=_ENTRIES, cursor=None),
    }


def _shown(value: object) -> Any:
    if isinstance(value, SecretStr):
        return "***"
    return value if isinstance(value, str | int | float | None) else str(value)


def _write(path: Path, value: Any) -> None:
    path.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2))
