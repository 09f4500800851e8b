"""`demo`: everything on one machine, with real work to watch. Nothing remains afterwards."""

from typing import Annotated

import typer

from progress_broker.settings import Settings
from progress_cli.options import with_settings


@with_settings("host", "port", "insecure", "log_level")
def demo(
    settings: Settings,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="End after this many rounds of all jobs. Default: run until stopped.")
    ] = None,
) -> None:
    """Start a private Redis, the API and three workers that do real work. Ctrl-C stops everything.

    Nothing is kept: the data is in a temporary directory, which is removed at the end.
    """
    from progress_cli.demo.run import run  # imports the web framework: other commands save half a second

    run(settings, rounds)
