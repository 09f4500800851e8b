"""Shows the same again and again: `-w`, and `top`."""

import time
from collections.abc import Callable
from typing import Annotated

import typer

from progress_broker.errors import BrokerError, is_temporary
from progress_cli.exit_codes import PRINTER, print_info

EVERY_S = 2.0

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show it again every two seconds, until Ctrl-C.")]

Write = Callable[[str], None]
"""Prints a line, or keeps it until all of them are there."""

_CLEAR = "\x1b[H\x1b[2J"


def show(draw: Callable[[Write], None], *, watch: bool) -> None:
    """Show what `draw` writes: once, or every two seconds."""
    if watch:
        repeat(draw, EVERY_S)
    else:
        draw(typer.echo)


def repeat(draw: Callable[[Write], None], every_s: float, count: int = 0) -> None:
    """Show what `draw` writes `count` times, or until Ctrl-C. In a terminal each takes the place of the one before.

    Once something was shown, it goes on while Redis or the server is away, and says so.
    """
    clear = _CLEAR if typer.get_text_stream("stdout").isatty() else ""
    shown = 0
    while True:
        lines, notes = list[str](), list[tuple[int, str]]()
        printer = PRINTER.set(lambda *note, kept=notes.append: kept(note))
        try:
            draw(lines.append)  # first all, so that a terminal is never empty meanwhile
        except BrokerError as error:
            if not (shown and is_temporary(error)):
                raise
            print_info(error.detail)
            lines.clear()
        finally:
            PRINTER.reset(printer)
        if lines or clear:
            typer.echo(clear + "\n".join(lines))
        for _, note in notes:
            print_info(note)
        shown += 1
        if shown == count:
            return
        time.sleep(every_s)
