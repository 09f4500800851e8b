"""Plays a recording through the reader of a command's output, with a clock that the test holds."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from progress_workers.core.progress.clock import Clock
from progress_workers.core.progress.dirty import DirtyFlag
from progress_workers.core.progress.measurement import Measurement
from progress_workers.core.progress.progress import Progress
from progress_workers.null import NullOperation
from progress_workers.processes.output import Output
from progress_workers.processes.run import make_outputs
from progress_workers.processes.running import QUIET_S

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


class Bar(NamedTuple):
    """What people see of the bar."""

    current: float
    total: float | None
    percent: float | None


class Sheet(NullOperation):
    """An operation that writes down what is reported, and computes the progress as a real one does."""

    id = "sheet"

    def __init__(self) -> None:
        self.now = 0.0
        self.progress = Progress(DirtyFlag(lambda: None), Clock(lambda: self.now), total=None, unit=None)
        self.bars: list[Bar] = []
        self.messages: list[str] = []
        self.logged: list[str] = []
        self.warned: list[str] = []

    def log(self, message: str, level: str = "info", stage: str | None = None) -> None:
        (self.logged if level == "info" else self.warned).append(message)

    def update(self, **told: Any) -> None:
        self.progress.update(
            **(dict.fromkeys(("current", "total", "percent", "metrics")) | {"message": None} | told), extra={}
        )
        self._look()

    def _measure(self, measured: Measurement) -> None:
        self.progress.measure(measured)
        self._look()

    def _look(self) -> None:
        told = self.progress.describe(self.now)
        bar = Bar(told["current"], told["total"], told["percent"])
        if bar != (self.bars[-1] if self.bars else Bar(0, None, None)):
            self.bars.append(bar)
        if told["message"] and [told["message"]] != self.messages[-1:]:
            self.messages.append(told["message"])

    @property
    def unit(self) -> Any:
        return self.progress.describe(self.now)["unit"]


class Played(NamedTuple):
    sheet: Sheet
    running: list[Bar]
    """The bars while the command ran."""
    exit_code: int
    last: list[str]
    """The last lines on stderr."""

    @property
    def parts(self) -> list[list[float]]:
        """The percentages while it ran, in lists that only rise: one for each part of the work."""
        found: list[list[float]] = []
        for bar in self.running:
            percent = bar.percent or 0.0
            if found and percent >= found[-1][-1]:
                found[-1].append(percent)
            else:
                found.append([percent])
        return found


def play(name: str, pattern: str = "bars", *, step: int | None = None) -> Played:
    """Play a recording; with `step`, in pieces of so many bytes."""
    recording = json.loads((FOLDER / f"{name}.json").read_text())
    sheet = Sheet()
    outputs = dict(zip(("stdout", "stderr"), make_outputs(sheet, pattern=pattern, ansi="strip"), strict=True))
    for pause, stream, text in recording["chunks"]:
        data = text.encode("utf-8", "surrogateescape")
        _wait(sheet, pause, list(outputs.values()))
        for start in range(0, len(data), step or len(data)):
            outputs[stream].feed(data[start : start + (step or len(data))])
    for output in outputs.values():
        output.feed(b"", final=True)
    running = list(sheet.bars)
    if recording["exit_code"] == 0:
        outputs["stdout"].complete()
    return Played(sheet, running, recording["exit_code"], [*outputs["stderr"].last])


def _wait(sheet: Sheet, pause: float, outputs: list[Output]) -> None:
    """Let time pass, as `Running` does: what has not changed for a moment is looked at."""
    sheet.now += pause
    if pause >= QUIET_S:
        for output in outputs:
            output.look()
