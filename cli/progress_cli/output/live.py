"""How `tail` shows an operation: JSON envelopes for programs, lines for pipes, a live bar for a terminal."""

import sys
from typing import Protocol, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from progress_broker.model.operation import Operation, Status
from progress_cli.output import format
from progress_client.events import End, Event, Log, Progress, Reset, Snapshot, StatusChange

_LEVELS = {"debug": "dim", "warning": "yellow", "error": "red", "critical": "bold red"}

_CLEAR = ("log", "status", "end")
"""Events whose line on a terminal shows what they are. The lines of all others begin with their type."""

_RESETS = {"trimmed": "older events are no longer kept; ", "lost": "its earlier events were lost; "}


class View(Protocol):
    """Shows an operation while it is followed."""

    def summary(self, operation: Operation) -> None:
        """Set the operation, before anything is shown."""

    def event(self, event: Event) -> None:
        """Show an event."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def choose_view(as_json: bool) -> View:
    """Return the view that fits the output."""
    if as_json:
        return Envelopes()
    return Bar() if sys.stdout.isatty() else Lines()


class Envelopes:
    """One event per line, as the API sends it."""

    def summary(self, operation: Operation) -> None:
        """Do nothing: there is nothing to prepare."""

    def event(self, event: Event) -> None:
        """Print the event's envelope."""
        sys.stdout.buffer.write(event.json.rstrip(b"\n") + b"\n")
        sys.stdout.buffer.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Lines(Envelopes):
    """One event per line, as text."""

    def __init__(self) -> None:
        self._status = ""

    def event(self, event: Event) -> None:
        """Print the event, or the operation's current state."""
        if isinstance(event, Snapshot | Reset):
            typer.echo(standing(event))
            self._status = event.state.status
        elif not (isinstance(event, End) and event.status == self._status):  # else its state has said so
            time = format.time_of(event).isoformat(timespec="milliseconds")
            typer.echo(f"{time}  {format.plain(event.type):<8}  {format.describe(event, self._status)}")
            self._status = format.status(event) or self._status


class Bar:
    """A live progress bar below the lines of the log."""

    def __init__(self) -> None:
        console = Console()
        # On a narrow terminal the title is cut, not the status.
        title = Column(no_wrap=True, overflow="ellipsis", max_width=console.width // 3)
        # Drawn on each event, not by a separate thread.
        self._live = RichProgress(
            TextColumn("{task.description}", table_column=title),
            BarColumn(),
            TextColumn("{task.fields[said]}", markup=False),
            auto_refresh=False,
            console=console,
        )
        self._task = self._live.add_task("", total=None, said="")
        self._status = self._before = ""
        self._progress: dict[str, object] | None = None

    def summary(self, operation: Operation) -> None:
        """Set the bar's name."""
        self._live.update(self._task, description=format.plain(operation.title or operation.id).replace("[", r"\["))
        self._show(operation.status, None)

    def event(self, event: Event) -> None:
        """Update the bar, or print a line."""
        match event:
            case Snapshot() | Reset():
                self._snapshot(event)
            case Progress(data=payload):
                self._show(self._status, payload)
                self._live.refresh()
            case End(status=status) if status == self._before:  # its state has said so
                pass
            case _:
                self._event(event)

    def _snapshot(self, event: Snapshot | Reset) -> None:
        operation = event.state
        if isinstance(event, Reset) or operation.done:
            self._line(standing(event), format.STYLES[operation.status])
        self._show(operation.status, operation.progress)
        self._before = operation.status
        self._live.refresh()

    def _event(self, event: Event) -> None:
        status, level = format.status(event), event.level if isinstance(event, Log) else ""
        time = format.time_of(event).timetz().isoformat("milliseconds")
        kind = "" if event.type in _CLEAR else f"{format.plain(event.type)}  "
        line = f"{time}  {kind}{format.describe(event, self._before)}"
        is_new_attempt = isinstance(event, StatusChange) and event.attempt is not None
        self._show(status or self._status, None if is_new_attempt else self._progress)
        self._before = status or self._before
        self._live.refresh()  # otherwise the line would appear above the old bar
        self._line(line, _LEVELS.get(level, "") or format.STYLES.get(status, ""))

    def _line(self, line: str, style: str) -> None:
        self._live.console.print(Text(line, style))

    def _show(self, status: str, payload: dict[str, object] | None) -> None:
        self._status, self._progress = status, payload
        percent = (payload or {}).get("percent")
        done = percent if isinstance(percent, int | float) else None
        progress = [part for part in (format.running_stage(payload), format.progress(payload, status)) if part]
        standing = [] if progress and status == Status.RUNNING else [status]
        said = "  ".join((*standing, *progress))
        self._live.update(self._task, completed=done or 0, total=None if done is None else 100, said=said)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


def standing(event: Snapshot | Reset) -> str:
    """Return an operation's state as a line."""
    operation = event.state
    why = _RESETS.get(event.reason, "") if isinstance(event, Reset) else ""
    status = operation.status.value
    if operation.status is Status.CANCELLING:
        status = f"cancelling ({format.describe_cancel(operation.cancel)})"
    parts = (status, format.progress(operation.progress, operation.status), format.outcome(operation))
    return f"{operation.id}: {why}now {'  '.join(part for part in parts if part)}"
