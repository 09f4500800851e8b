"""The CPU cost of `import progress_workers` in a new interpreter, relative to importing only its dependencies: in a
plain install, and in one with OpenTelemetry and cryptography. Exits with 1 if the ratio is over 1.3."""

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from typing import NamedTuple

from rich.table import Table

from bench.harness import Spread, alternating, note, options, ratios, read_options, report
from bench.processes import Cores

MOST = 1.3
OURS = ("progress_workers", "progress_broker")
EXTRAS = ("opentelemetry", "cryptography")
"""Optional dependencies that redis and progress_workers import if they are installed. A plain install has none."""
INSTALLS = {"plain": EXTRAS, "with traces": ()}
VARIANTS = ("dependencies", "progress_workers")

LISTED = f"""
import progress_workers
for name, module in sys.modules.items():
    top = name.partition(".")[0]
    if module is not None and top not in sys.stdlib_module_names | {set(OURS)!r} and not top.startswith("_"):
        print(name)
"""
TIMED = """
import importlib, os, time
os.sched_setaffinity(0, {cores}) if {cores} else None
began = time.process_time()
for name in {names}:
    importlib.import_module(name)
print(time.process_time() - began)
"""


class Case(NamedTuple):
    install: str
    variant: str


class Interpreter:
    """Runs code in new interpreters. Modules are already compiled, as in an installation: in a folder of ours, or
    where they are."""

    def __init__(self, compiled: str | None, cores: Cores) -> None:
        self._cores = sorted(cores.measured)
        self._environment = os.environ | ({"PYTHONPYCACHEPREFIX": compiled} if compiled else {})
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def run(self, code: str, without: tuple[str, ...]) -> list[str]:
        hidden = f"import sys\nsys.modules |= dict.fromkeys({without!r})\n"
        command = [sys.executable, "-c", hidden + code]
        done = subprocess.run(command, env=self._environment, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.split()

    def import_ms(self, names: list[str], without: tuple[str, ...]) -> float:
        (cpu_s,) = self.run(TIMED.format(cores=self._cores, names=names), without)
        return 1e3 * float(cpu_s)


def main() -> int:
    parser = options(__doc__, rounds=5, seconds=2)
    parser.add_argument("--no-check", action="store_true", help="do not exit with 1 if the bound is exceeded")
    given = read_options(parser)
    found: defaultdict[Case, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="bench-imports-") as compiled:
        interpreter = Interpreter(None if given.quick else compiled, Cores.split())
        names = {
            Case(install, variant): ["progress_workers"] if variant == "progress_workers" else foreign
            for install, without in INSTALLS.items()
            for foreign in [interpreter.run(LISTED, without)]
            for variant in VARIANTS
        }
        for case in names:
            interpreter.import_ms(names[case], INSTALLS[case.install])  # compiles
        for case in alternating(list(names), given.rounds):
            found[case].append(measure(interpreter, names[case], INSTALLS[case.install], given.seconds))
            note(f"{case.install}, {case.variant}: {found[case][-1]:.0f} ms")
    table = Table(title="Importing progress_workers: median (lowest-highest)")
    for title in ("install", "dependencies alone, ms of CPU", "progress_workers", "ratio"):
        table.add_column(title, justify="left" if title == "install" else "right")
    results, passed = [], True
    for install in INSTALLS:
        alone, all_of_it = (found[Case(install, variant)] for variant in VARIANTS)
        ratio = ratios(all_of_it, alone)
        passed = passed and ratio.median <= MOST
        table.add_row(install, Spread.of(alone).text(), Spread.of(all_of_it).text(), ratio.text(2))
        results.append(
            {
                "install": install,
                "modules": len(names[Case(install, "dependencies")]),
                "dependencies_ms": Spread.of(alone).json(),
                "progress_workers_ms": Spread.of(all_of_it).json(),
                "ratio": ratio.json(),
            }
        )
    report("imports", None, given, table, {"results": results, "passed": passed})
    return 0 if passed or given.quick or given.no_check else 1


def measure(interpreter: Interpreter, names: list[str], without: tuple[str, ...], seconds: float) -> float:
    """Return the cheapest import within this time; there is at least one.

    Disturbances can only make an import slower.
    """
    end, taken = time.monotonic() + seconds, list[float]()
    while not taken or time.monotonic() < end:
        taken.append(interpreter.import_ms(names, without))
    return min(taken)


if __name__ == "__main__":
    sys.exit(main())
