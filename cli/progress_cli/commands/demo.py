"""`demo`: everything on one machine, with real work to watch, and nothing left behind."""

from typing import Annotated

import typer

from progress_broker.settings import Settings
from progress_cli.options import with_settings


@with_settings("host", "port", "insecure", "log_level")
def demo(
    settings: Settings,
    rounds: Annotated[int | None, typer.Option(min=1, help="End after every job was done so often.")] = None,
) -> None:
    """Start a private Redis, the API and three workers that do real work, until told to stop.

    Nothing is kept: the data lies in a temporary directory, which is removed at the end.
    """
    from progress_cli.demo.run import run  # the web framework: half a second that other commands need not spend

    run(settings, rounds)
