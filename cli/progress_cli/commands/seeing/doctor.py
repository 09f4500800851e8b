"""`doctor`: what is wrong with Redis, its data, the servers and what is before them, and what to do."""

import asyncio
from typing import Annotated, Optional

import typer

from progress_broker.diagnosis.bounded import PATIENCE_S
from progress_broker.diagnosis.finding import Check
from progress_broker.settings import Settings
from progress_cli.doctor.examine import examine
from progress_cli.doctor.report import ReportFormat, exit_code, print_report
from progress_cli.options import CLIENT, with_settings


@with_settings("token_file", *CLIENT)
def doctor(
    settings: Settings,
    url: Annotated[
        Optional[list[str]],  # noqa: UP045 - read at run time
        typer.Option(metavar="URL", help="URL of a server to look at from outside. May be repeated."),
    ] = None,
    output: Annotated[ReportFormat, typer.Option("--output", "-o", help="What to print.")] = ReportFormat.TABLE,
    only: Annotated[
        Optional[list[Check]],  # noqa: UP045 - read at run time
        typer.Option(metavar="CHECK", help="Tell only what this check finds. May be repeated."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="How many seconds a check may take.")] = PATIENCE_S,
) -> None:
    """Look for what is wrong with Redis, its data, the servers and the proxies before them, and say what to do.

    It looks at the Redis of PROGRESS_REDIS_URL, and at each --url, or that of PROGRESS_URL; if none of them is given,
    at the private Redis on this machine.
    """
    findings, reached = asyncio.run(examine(settings, url or ([settings.url] if settings.url else []), timeout))
    # Where nothing was reached, nothing else could be found.
    told = [finding for finding in findings if not only or not reached or finding.check in only]
    print_report(told, output, typer.echo)
    raise typer.Exit(exit_code(told, output, reached=reached))
