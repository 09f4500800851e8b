"""`python -m progress_cli.demo [JOB …]`: does the jobs again and again, one after another, until told to stop."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from progress_broker.errors import BrokerError, StorageUnavailable
from progress_cli.demo.jobs import JOBS
from progress_workers import Cancelled

PAUSE_S = 3.0
"""Between two rounds, so that a machine is not kept busy by a demo."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do rounds of the jobs; return 0 when they are done or the process was told to stop, 1 when a job failed."""
    parser = argparse.ArgumentParser(prog="python -m progress_cli.demo", description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"what to do: {', '.join(JOBS)} (all of them)")
    parser.add_argument("--rounds", type=int, metavar="N", help="end after so many rounds (never)")
    given = parser.parse_args(arguments)
    if unknown := [job for job in given.jobs if job not in JOBS]:
        parser.error(f"there is no job {unknown[0]!r}: choose from {', '.join(JOBS)}")
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        return _rounds(given.jobs or list(JOBS), given.rounds)
    except KeyboardInterrupt:
        return 0
    except BrokerError as error:
        sys.stderr.write(f"progress_cli.demo: {error.detail}\n")
        return 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Leave whatever is being done: the operation ends as cancelled, its files are removed. Once is enough."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _rounds(jobs: Sequence[str], rounds: int | None) -> int:
    done = 0
    while rounds is None or done < rounds:
        if done:
            time.sleep(PAUSE_S)
        for kind in jobs:
            try:
                JOBS[kind].run(kind)
            except Cancelled:
                pass  # somebody pressed the button: on to the next
            except StorageUnavailable as error:
                if rounds is not None:
                    raise
                sys.stderr.write(f"progress_cli.demo: {error.detail}; trying again\n")
        done += 1
    return 0


sys.exit(main())
