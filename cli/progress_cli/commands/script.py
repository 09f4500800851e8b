"""`script`: what a worker in another language loads into Redis."""

from enum import StrEnum
from typing import Annotated

import typer

from progress_broker.storage import scripts


class WorkerScript(StrEnum):
    """The scripts that workers call."""

    CREATE = "create"
    PUBLISH = "publish"
    SIGNAL = "signal"
    DELETE = "delete"


_SCRIPTS = {
    WorkerScript.CREATE: scripts.CREATE,
    WorkerScript.PUBLISH: scripts.PUBLISH,
    WorkerScript.SIGNAL: scripts.SIGNAL,
    WorkerScript.DELETE: scripts.DELETE,
}


def script(name: Annotated[WorkerScript, typer.Argument(help="What the script does.")]) -> None:
    """Print a Lua script, for a worker in another language to load into Redis.

    Its header says how it is called. docs/protocol.md has an example.
    """
    typer.echo(_SCRIPTS[name].text, nl=False)
