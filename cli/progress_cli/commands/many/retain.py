"""`retain`: say how long operations are kept."""

from typing import Annotated

import typer

from progress_broker.errors import InvalidInput
from progress_broker.model.operation import MAX_RETENTION_S
from progress_broker.operations.retention import PINNED, Keep
from progress_broker.queries.fields import Pairs
from progress_broker.runtime.durations import seconds
from progress_broker.settings import Settings
from progress_cli.commands.many.acting import Ids, Options, act_on_many, is_one, with_many


@with_many
def retain(
    settings: Settings,
    ids: Ids = None,
    query: Pairs = (),
    last: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="How long after their end, such as 7d.")
    ] = None,
    pin: Annotated[bool, typer.Option("--pin", help="For as long as can be: ten years.")] = False,
    default: Annotated[
        bool, typer.Option("--default", help="As the retention of all operations, and their creators, say.")
    ] = False,
    *,
    options: Options,
) -> None:
    """Say how long chosen operations are kept. It counts more than the retention of all (`retention`).

    Without events an operation that has not ended expires as before, unless it is pinned.
    """
    if (last is not None) + pin + default != 1:
        raise InvalidInput("say how long: one of --for, --pin and --default")
    keep = None if default else PINNED if pin else Keep(_seconds(last or ""))
    options = options._replace(yes=options.yes or is_one(ids, query))
    act_on_many(settings, ids or (), query, options, lambda many: many.retain(keep), "kept anew")


def _seconds(text: str) -> float:
    last_s = seconds(text)
    if last_s > MAX_RETENTION_S:
        raise InvalidInput(f"--for {text} is too long: use --pin, which is {MAX_RETENTION_S / 86_400:,.0f} days")
    return last_s
