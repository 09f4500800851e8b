"""A worker that reports lines to some operations at a steady rate, and prints which it was told are stored.

It prints `NAME LINES SECONDS` for each answer: so many lines of an operation were stored at that time of the monotonic
clock, which all processes share; and `pause SECONDS SECONDS` when the machine let it wait so long at that time. It
takes commands as JSON on its standard input: `start` and `end` name operations; at its end all of them succeed.
"""

import json
import sys
import threading
import time
from collections.abc import Sequence

from progress_workers import Operation

FLUSH_S = 1.0
_PRINTING = threading.Lock()


def say(*words: object) -> None:
    with _PRINTING:
        print(*words, flush=True)


class Reporting:
    """One operation. Its lines are numbered from 1."""

    def __init__(self, name: str) -> None:
        self.name, self.lines = name, 0
        self._over = False
        self._op = Operation.start("chaos", id=name, lease_s=60)
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def write(self) -> None:
        self.lines += 1
        self._op.log(f"line {self.lines}")

    def _ask(self) -> None:
        """Ask again and again what is stored."""
        asked = 0
        while not self._over:
            if asked == self.lines:
                time.sleep(0.01)
                continue
            asked = self.lines
            if self._op.flush(FLUSH_S):
                say(self.name, asked, time.monotonic())

    def end(self) -> None:
        self._over = True
        self._thread.join()
        self._op.succeed({"lines": self.lines})

    def await_stored(self, deadline: float) -> None:
        """Wait until its end is stored, and a replica has it if there is one: so long the process has to live."""
        while not self._op.flush(max(0.0, deadline - time.monotonic())):
            if time.monotonic() > deadline:
                return
            time.sleep(0.1)
        say(self.name, self.lines, time.monotonic())


class Pauses(threading.Thread):
    """Notices when the machine has no time for this process."""

    TICK_S, LATE_S = 0.02, 0.05

    def __init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        while True:
            before = time.monotonic()
            time.sleep(self.TICK_S)
            if (late := time.monotonic() - before - self.TICK_S) > self.LATE_S:
                say("pause", late, time.monotonic())


class Worker:
    """All operations of a process."""

    def __init__(self, rate: float, names: Sequence[str]) -> None:
        self._period_s = 1 / rate
        self._reporting = [Reporting(name) for name in names]
        self._ended: list[Reporting] = []
        self._lock = threading.Lock()

    def write(self) -> None:
        """Write lines for as long as there are operations."""
        due = time.monotonic()
        while True:
            with self._lock:
                if not self._reporting:
                    return
                for each in self._reporting:
                    each.write()
            due += self._period_s
            time.sleep(max(0.0, due - time.monotonic()))

    def start(self, names: Sequence[str]) -> None:
        begun = [Reporting(name) for name in names]
        with self._lock:
            self._reporting += begun

    def end(self, names: Sequence[str] | None = None) -> None:
        with self._lock:
            ended = [each for each in self._reporting if names is None or each.name in names]
            self._reporting = [each for each in self._reporting if each not in ended]
        for each in ended:
            each.end()
        self._ended += ended

    def close(self) -> None:
        self.end()
        deadline = time.monotonic() + 30
        for each in self._ended:
            each.await_stored(deadline)


def main(rate: float, names: Sequence[str]) -> None:
    worker = Worker(rate, names)
    Pauses().start()
    writing = threading.Thread(target=worker.write)
    writing.start()
    for line in sys.stdin:
        command = json.loads(line)
        worker.start(command.get("start", []))
        if "end" in command:
            worker.end(command["end"])
    worker.close()
    writing.join()


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
