"""`debug`: collect what helps to find out what is wrong, into files of a folder."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from pydantic import BaseModel, SecretStr

from progress_broker.access.audit import AuditFilter
from progress_broker.diagnosis.bounded import PATIENCE_S
from progress_broker.errors import BrokerError, InvalidInput
from progress_broker.replicas.streams import MOST, StreamFilter
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.doctor.examine import examine
from progress_cli.doctor.report import ReportFormat, print_report
from progress_cli.exit_codes import print_info
from progress_cli.options import READER, with_settings
from progress_client.operators.administration import Administration

_SAMPLE = 1_000
_ENTRIES = 500
_LINES = {"last": "1000", "level": "debug", "follow": "false"}

Part = Callable[[], Awaitable[Any]]


@with_settings(*READER)
def debug(
    settings: Settings,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that does not exist yet.")],
) -> None:
    """Collect what helps to find out what is wrong, into files of a folder: no secrets and no events of operations.

    It has what doctor finds, replicas, figures, streams, workers, what takes room, the audit, and the settings of this
    command; through a server also its metrics and the last lines of its log, and in Redis itself what Redis tells
    (INFO). What can't be read is told in its file.
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
    _write(folder, "settings", {name: _shown(value) for name, value in settings})
    await _keep(folder, "doctor", lambda: _doctor(settings))
    async with connect.operators(settings) as operators:
        for name, read in _parts(operators.admin, through_server=settings.url is not None).items():
            await _keep(folder, name, read)


def _parts(admin: Administration, *, through_server: bool) -> dict[str, Part]:
    parts: dict[str, Part] = {
        "replicas": admin.replicas,
        "stats": admin.stats,
        "workers": admin.workers,
        "storage": lambda: admin.storage(_SAMPLE),
        "streams": lambda: admin.streams(StreamFilter(), limit=MOST, cursor=None),
        "audit": lambda: admin.audit(AuditFilter(), limit=_ENTRIES, cursor=None),
    }
    return parts | ({"metrics": admin.metrics, "log": lambda: _log(admin)} if through_server else {"info": admin.info})


async def _doctor(settings: Settings) -> Any:
    examined = await examine(settings, [settings.url] if settings.url else [], PATIENCE_S)
    lines: list[str] = []
    print_report(examined.findings, ReportFormat.JSON, lines.append)
    return orjson.loads("".join(lines))


async def _log(admin: Administration) -> list[dict[str, Any]]:
    return [line async for line in admin.monitor(_LINES)]


async def _keep(folder: Path, name: str, read: Part) -> None:
    """Write what can be read, or why it can't."""
    try:
        found = await read()
    except BrokerError as error:
        print_info(f"{name}: {error.detail}")
        found = {"error": error.code, "detail": error.detail}
    _write(folder, name, found.model_dump(mode="json") if isinstance(found, BaseModel) else found)


def _shown(value: object) -> Any:
    if isinstance(value, SecretStr):
        return "***"
    return value if isinstance(value, str | int | float | None) else str(value)


def _write(folder: Path, name: str, value: Any) -> None:
    if isinstance(value, str):
        (folder / f"{name}.txt").write_text(value)
    else:
        (folder / f"{name}.json").write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str))
