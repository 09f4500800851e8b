"""`doctor`: what is wrong with Redis, its data, the servers and what is before them, and what to do."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Annotated, Optional

import typer

from progress_broker.diagnosis.bounded import PATIENCE_S
from progress_broker.diagnosis.finding import Check
from progress_broker.diagnosis.redis import Examined, examine_redis
from progress_broker.settings import Settings, load_settings
from progress_cli import connect
from progress_cli.doctor.local import examine_settings
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
    findings, reached = asyncio.run(_examine(settings, url or ([settings.url] if settings.url else []), timeout))
    # Where nothing was reached, nothing else could be found.
    told = [finding for finding in findings if not only or not reached or finding.check in only]
    print_report(told, output, typer.echo)
    raise typer.Exit(exit_code(told, output, reached=reached))


async def _examine(settings: Settings, urls: Sequence[str], patience_s: float) -> Examined:
    works: list[Coroutine[None, None, Examined]] = []
    if settings.redis_url is not None or not urls:
        works.append(examine_redis(connect.locate(settings), patience_s=patience_s))
    if urls:
        from progress_cli.doctor.url import examine_url  # needs more packages

        for url in urls:
            checked = load_settings(url=url).url or url
            works.append(examine_url(settings, checked, patience_s=patience_s, arrival_s=patience_s / 2))
    local, results = await asyncio.gather(examine_settings(settings, patience_s), asyncio.gather(*works))
    findings = [finding for examined in results for finding in examined.findings]
    return Examined([*local, *findings], any(examined.reached for examined in results))
