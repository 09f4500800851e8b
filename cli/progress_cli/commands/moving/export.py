"""`export`: write operations to a file."""

import asyncio
from collections.abc import Callable
from typing import Annotated

import typer

from progress_broker.errors import NotFound
from progress_broker.queries.fields import read_filters
from progress_broker.settings import Settings
from progress_broker.transfer.endpoints import OperationSource
from progress_broker.transfer.files.exporting import export_lines
from progress_broker.transfer.files.local import PIPE, write_file
from progress_broker.transfer.files.redaction import RedactedSource
from progress_broker.transfer.format import OperationEnd
from progress_cli import connect
from progress_cli.exit_codes import print_info
from progress_cli.options import READER, with_settings
from progress_cli.output.transfer import Counts, shown
from progress_cli.query_options import Pairs, with_filters


@with_settings(*READER)
@with_filters(ids=True, file=True)
def export(
    settings: Settings,
    query: Pairs,
    file: str,
    redact: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Remove this from data, such as `$..password`; may be repeated."),
    ] = None,
    anonymise: Annotated[
        bool,
        typer.Option(
            "--anonymise",
            help="Replace owners, titles, workers, callers, messages, producers and values of metadata by codes.",
        ),
    ] = False,
) -> None:
    """Write operations, with all that is kept of their events, to a file or to standard output.

    For example `progress-broker export import-42 import-42.ndjson`, or `progress-broker export --status failed
    --since 1d failed.ndjson.zst`. Without ids and filters, all operations are exported.
    """
    counts = Counts()

    def redacted(source: OperationSource) -> OperationSource:
        return RedactedSource(source, redact or (), anonymise=anonymise) if redact or anonymise else source

    with shown("Exporting", counts):
        missing = asyncio.run(_export(settings, query, file, counts, redacted))
    if file != PIPE:
        print_info(f"{counts} exported to {file}")
    if missing:
        others = "; the export has the others" if counts.operations else ""
        raise NotFound(f"there is no operation {', '.join(missing[:10])}{others}")


async def _export(
    settings: Settings,
    query: Pairs,
    file: str,
    counts: Counts,
    redacted: Callable[[OperationSource], OperationSource],
) -> list[str]:
    """Return the ids that were asked for and not found."""
    async with connect.operators(settings) as operators:
        filters = read_filters(query, round(1000 * (await operators.now()).timestamp()))
        missing = dict.fromkeys(filters.ids)

        def ended(end: OperationEnd) -> None:
            counts.add(end.events)
            missing.pop(end.id, None)

        await write_file(file, export_lines(redacted(operators.source(filters)), ended))
    return list(missing)
