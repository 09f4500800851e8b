"""`copy`: copy a whole Redis to another one, follow it, and go over to the copy."""

import asyncio
import logging
import re
import sys
from typing import Annotated

import typer

from progress_broker.access.audit import AuditEntry, record_once
from progress_broker.copying.copier import Copier
from progress_broker.copying.cut_over import cut_over as go_over
from progress_broker.errors import SetupError
from progress_broker.operations.store import Store
from progress_broker.runtime.tasks import end
from progress_broker.settings import Settings, load_settings
from progress_broker.storage.lanes import shown as lanes_shown
from progress_cli import connect
from progress_cli.caller import caller
from progress_cli.exit_codes import REJECTED, print_error, print_info
from progress_cli.options import CLIENT, with_settings
from progress_cli.output.format import counted
from progress_cli.output.transfer import shown

_LAG_S = 1.0
_STDIN = "-"


@with_settings(*CLIENT)
def copy(
    settings: Settings,
    to_redis_url: Annotated[
        str,
        typer.Option(metavar="URL|-", help="The Redis that gets the copy; `-` reads the address from standard input."),
    ],
    to_prefix: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The prefix there, if it is another one.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what changes, until Ctrl-C.")] = False,
    cut_over: Annotated[
        bool,
        typer.Option("--cut-over", help="Follow until the source is no longer used, check the copy, and finish it."),
    ] = False,
) -> None:
    """Copy all operations to another Redis, with their positions, so that clients and workers can go on there.

    The target is empty, or a copy that was begun before: the same command goes on with it. No server may use it before
    the cut-over. The source goes on as it is.
    """
    logging.basicConfig(format="progress-broker: %(message)s", level=logging.WARNING)
    address = sys.stdin.readline().strip() if to_redis_url == _STDIN else to_redis_url
    source = connect.locate(settings)
    to = load_settings(redis_url=address, prefix=to_prefix or source.prefix)
    left_out = asyncio.run(_copy(source, to, follow=follow, cut_over=cut_over))
    for line in left_out:
        print_error(line)
    if left_out:
        raise typer.Exit(REJECTED)


async def _copy(settings: Settings, to: Settings, *, follow: bool, cut_over: bool) -> list[str]:
    """Copy; return what is missing in the copy, and why."""
    async with await Store.open(settings) as source, await _open_target(to, source.keyspace.lanes) as target:
        copier = Copier(source, target)
        async with copier.claimed():
            await record_once(source, AuditEntry(caller(), "redis", "copy", _place(to)))
            progress = _Progress(copier)
            watching = asyncio.create_task(progress.watch())
            try:
                with shown("Copying:", progress):
                    await copier.following(_work(copier, follow=follow, cut_over=cut_over))
            finally:
                await end(watching)
        if cut_over:
            await record_once(target, AuditEntry(caller(), "redis", "cut-over", _place(settings)))
            print_info(
                "the copy is complete, and the same as the source: start servers and workers with"
                f" PROGRESS_REDIS_URL={_place(to)} and PROGRESS_PREFIX={to.prefix}, and none at the source any more"
            )
    if copier.lost:
        print_info(f"streams of many operations in {lanes_shown(copier.lost)} may begin anew: their feeds have gaps")
    return [f"operation {id} is not in the copy: {why}" for id, why in copier.mirror.left_out.items()]


async def _open_target(to: Settings, lanes: int) -> Store:
    try:
        return await Store.open(to.model_copy(update={"lanes": lanes}))
    except SetupError as error:
        raise SetupError(
            f"the target can't take the copy: {error.detail}. It needs {lanes} lanes, as the source has; an empty Redis"
            " is set up so"
        ) from None


async def _work(copier: Copier, *, follow: bool, cut_over: bool) -> None:
    if cut_over:
        await go_over(copier, print_info)
        return
    await copier.caught_up()
    goes_on = ". It goes on with what changes until Ctrl-C" if follow else ""
    print_info(f"the copy has caught up: {counted(copier.looked, 'operation')}{goes_on}")
    if follow:
        await asyncio.Event().wait()


class _Progress:
    """How far a copy is, for people."""

    def __init__(self, copier: Copier) -> None:
        self._copier, self._lag_s = copier, 0.0

    def __str__(self) -> str:
        return f"{counted(self._copier.looked, 'operation')} looked at, {self._lag_s:.1f} s behind"

    async def watch(self) -> None:
        """Look again and again how far the copy is behind."""
        while True:
            self._lag_s = await self._copier.lag_s()
            await asyncio.sleep(_LAG_S)


def _place(settings: Settings) -> str:
    """Return a Redis' address without its user and password."""
    address = settings.redis_url.get_secret_value() if settings.redis_url is not None else ""
    return re.sub(r"//[^@/\s]*@", "//", address)
