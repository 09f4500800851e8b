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
from progress_broker.errors import SetupError, StorageFull
from progress_broker.operations.store import Store
from progress_broker.runtime.tasks import end
from progress_broker.settings import Settings, load_settings
from progress_broker.storage.lanes import shown as lanes_shown
from progress_broker.storage.schema import OtherLanes
from progress_cli import connect
from progress_cli.caller import caller
from progress_cli.commands.moving.until_stopped import until_stopped
from progress_cli.exit_codes import INTERRUPTED, OK, REJECTED, print_error, print_info
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
    raise typer.Exit(asyncio.run(_copy(source, address, to_prefix or source.prefix, follow=follow, cut_over=cut_over)))


async def _copy(settings: Settings, to_redis_url: str, to_prefix: str, *, follow: bool, cut_over: bool) -> int:
    """Copy; return the exit code."""
    async with (
        await Store.open(settings) as source,
        await _open_target(to_redis_url, to_prefix, source.keyspace.lanes) as target,
    ):
        copier = Copier(source, target)
        async with copier.claimed():
            await record_once(source, AuditEntry(caller(), "redis", "copy", _place(target.settings)))
            stopped = await _show(copier, follow=follow, cut_over=cut_over)
        if cut_over and not stopped:
            await record_once(target, AuditEntry(caller(), "redis", "cut-over", _place(settings)))
            print_info(
                "the copy is complete, and the same as the source: start servers and workers with"
                f" PROGRESS_REDIS_URL={_place(target.settings)} and PROGRESS_PREFIX={to_prefix},"
                " and none at the source any more"
            )
    if copier.lost:
        print_info(f"streams of many operations in {lanes_shown(copier.lost)} may begin anew: their feeds have gaps")
    for id, why in copier.mirror.left_out.items():
        print_error(f"operation {id} is not in the copy: {why}")
    if copier.mirror.left_out:
        return REJECTED
    return INTERRUPTED if stopped and (cut_over or not follow) else OK


async def _open_target(redis_url: str, prefix: str, lanes: int) -> Store:
    try:
        settings = load_settings(redis_url=redis_url, prefix=prefix)
        return await Store.open(settings.model_copy(update={"lanes": lanes}))
    except OtherLanes:
        raise SetupError(
            f"the target was set up with another number of lanes than the source, which has {lanes}: use an empty"
            " Redis, or another --to-prefix"
        ) from None
    except (SetupError, StorageFull) as error:
        named = error.detail.replace("PROGRESS_REDIS_URL", "--to-redis-url").replace("PROGRESS_PREFIX", "--to-prefix")
        raise SetupError(f"the target can't be used: {named}") from None


async def _show(copier: Copier, *, follow: bool, cut_over: bool) -> bool:
    """Copy, and show how far it is. Return whether Ctrl-C or SIGTERM stopped it, and say so."""
    progress = _Progress(copier)
    watching = asyncio.create_task(progress.watch())
    try:
        with shown("Copying:", progress):
            stopped = await until_stopped(copier.following(_work(copier, follow=follow, cut_over=cut_over)))
    finally:
        await end(watching)
    if stopped:
        finish = "with --cut-over it also finishes it" if not cut_over else "the source is still the one to use"
        print_info(f"stopped: {progress}. The same command goes on with the copy; {finish}")
    return stopped


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
        looked = counted(self._copier.looked, "operation")
        if not self._copier.passed.is_set():
            return f"{looked} looked at so far"
        return f"it has all, {looked}, and is {self._lag_s:.1f} s behind"

    async def watch(self) -> None:
        """Look again and again how far the copy is behind."""
        while True:
            self._lag_s = await self._copier.lag_s()
            await asyncio.sleep(_LAG_S)


def _place(settings: Settings) -> str:
    """Return a Redis' address without its user and password."""
    address = settings.redis_url.get_secret_value() if settings.redis_url is not None else ""
    return re.sub(r"//[^@/\s]*@", "//", address)
