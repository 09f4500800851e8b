"""How late `replay --speed 10` is with an hour of events, by when their lines arrive in a pipe. Their bytes and their
order have to be those of streams. Exits with 1 if they are not, or if 99 % of them are more than 20 ms later than the
lines of a process that only sleeps until the same times.
"""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from bench.harness import note, options, read_options, report
from bench.processes import Cores, pin
from progress_broker.model.position import milliseconds
from progress_broker.replay.player import Lateness
from progress_broker.replay.recording import Recorded
from progress_broker.transfer.files.writer import ExportWriter
from progress_broker.transfer.format import ExportedEvent, ExportedOperation, ExportHead

SPEED = 10
SECONDS, QUICK_S = 360.0, 10.0
A_SECOND, BURST = 20, 10
"""About how many events there were a second, and how many came at one moment when several did."""
OPERATIONS = 5
MOST_LATE_MS = 20
BEGAN_MS = 1_795_959_000_000
PART = 500
SLEEPER = """
import os, sys, time
start = time.monotonic()
for due in {}:
    while (left := start + due - time.monotonic()) > 0:
        time.sleep(left)
    os.write(1, b"\\n")
"""
"""Writes a line when each is due, and does nothing else: what is late there is late because of the machine."""


class Seen(NamedTuple):
    """Lines, when each arrived, and what came on standard error."""

    lines: list[bytes]
    at_s: list[float]
    said: str


def made(seconds: float) -> list[Recorded]:
    """Return events of so many seconds, in the order of their times: some alone, some many at one moment."""
    chosen, events, ms = random.Random(7), list[Recorded](), 0.0
    counts = dict.fromkeys(range(OPERATIONS), 0)
    while ms < 1000 * seconds:
        size = BURST if chosen.random() < 0.05 else 1
        for seq in range(size):
            operation = chosen.randrange(OPERATIONS)
            counts[operation] = n = counts[operation] + 1
            position = b"%d-%d" % (BEGAN_MS + int(ms), seq)
            data = b'{"current":%d,"total":1e5,"message":"row %d"}' % (n, n)
            event = ExportedEvent(n, position, b"progress", data, b"worker", b"%d" % n)
            events.append(Recorded(f"op-{operation}", event))
        ms += 1 + chosen.expovariate(A_SECOND / 1000)
    return events


def write(path: Path, events: list[Recorded]) -> None:
    """Write an export of events."""
    writer = ExportWriter()
    with path.open("wb") as file:
        file.write(writer.head(ExportHead("2026-11-30T00:00:00.000Z", "0", 2, "progress", {})))
        for id in sorted({recorded.operation for recorded in events}):
            own = [recorded.event for recorded in events if recorded.operation == id]
            last = own[-1]
            fields = {b"spec": b"{}", b"status": b"running", b"attempt": b"1", b"created": b"%d" % BEGAN_MS}
            numbers = {b"n": b"%d" % last.n, b"position": last.position}
            file.write(writer.operation(ExportedOperation(id, fields | numbers, b"", last.n, 1, last.position)))
            for at in range(0, len(own), PART):
                file.write(writer.events(own[at : at + PART]))
            file.write(writer.end()[0])
        file.write(writer.file_end())


def printed(command: list[str], cores: Cores) -> Seen:
    """Return what a Python program prints, and what it tells in the end."""
    process = subprocess.Popen([sys.executable, "-P", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    pin(cores.measured, process.pid)
    pin(cores.others)
    lines, at_s, rest = list[bytes](), list[float](), b""
    while chunk := os.read(process.stdout.fileno(), 1 << 20):
        now = time.perf_counter()
        *whole, rest = (rest + chunk).split(b"\n")
        lines += whole
        at_s += [now] * len(whole)
    said = process.stderr.read().decode()
    if process.wait():
        raise RuntimeError(said)
    return Seen(lines, at_s, said.strip())


def due_of(events: list[Recorded]) -> list[float]:
    """Return when events are due, in seconds after the first one."""
    first_ms = milliseconds(events[0].event.position)
    return [(milliseconds(recorded.event.position) - first_ms) / 1000 / SPEED for recorded in events]


def lateness_of(at_s: list[float], due_s: list[float]) -> Lateness:
    """Return how late lines were. The first one counts as on time."""
    late = Lateness()
    for at, due in zip(at_s, due_s, strict=True):
        late.add(at - at_s[0] - due)
    return late


def main() -> int:
    parser = options(__doc__, rounds=1, seconds=SECONDS)
    parser.add_argument("--no-check", action="store_true", help="do not exit with 1 if the bound is missed")
    given = read_options(parser)
    if given.quick and "--seconds" not in sys.argv:
        given.seconds = QUICK_S
    cores, events = Cores.split(), made(SPEED * given.seconds)
    wanted, due_s = [recorded.frame.envelope for recorded in events], due_of(events)
    found: list[tuple[int, int, int]] = []
    with tempfile.TemporaryDirectory(prefix="bench-replay-") as folder:
        path = Path(folder) / "events.ndjson"
        write(path, events)
        sleeper = Path(folder) / "sleeper.py"
        sleeper.write_text(SLEEPER.format(due_s))
        for _ in range(given.rounds):
            with ThreadPoolExecutor(1) as beside:
                asleep = beside.submit(printed, [str(sleeper)], cores)
                seen = printed(["-m", "progress_cli", "replay", str(path), "--speed", str(SPEED)], cores)
                machine = lateness_of(asleep.result().at_s, due_s)
            if seen.lines != wanted:
                note(f"wrong: {len(seen.lines)} lines of {len(wanted)}, or other ones")
                return 1
            late = lateness_of(seen.at_s, due_s)
            found.append((late.percentile_ms(50) or 0, late.percentile_ms(99) or 0, machine.percentile_ms(99) or 0))
            note(f"p50 {found[-1][0]} ms, p99 {found[-1][1]} ms, the machine {found[-1][2]} ms; {seen.said}")
    p50, p99, machine_p99 = (statistics.median(values) for values in zip(*found, strict=True))
    passed = p99 <= machine_p99 + MOST_LATE_MS
    table = Table(title=f"{len(events)} events of {SPEED * given.seconds:.0f} s, {SPEED} times as fast: how late")
    for column in ("p50, ms", "p99, ms", "machine p99, ms", "bound, ms"):
        table.add_column(column, justify="right")
    table.add_row(f"{p50:.0f}", f"{p99:.0f}", f"{machine_p99:.0f}", f"{machine_p99 + MOST_LATE_MS:.0f}")
    figures = {"events": len(events), "p50_ms": p50, "p99_ms": p99, "machine_p99_ms": machine_p99, "passed": passed}
    report("replay", None, given, table, figures)
    return 0 if passed or given.quick or given.no_check else 1


if __name__ == "__main__":
    sys.exit(main())
