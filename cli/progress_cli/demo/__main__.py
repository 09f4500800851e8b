"""`python -m progress_cli.demo [JOB …]`: runs the jobs again and again, one after another, until it is stopped."""

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
"""The pause between two rounds, in seconds, so that a demo does not keep the machine busy."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run rounds of the jobs. Return 0 when they are done or the process was stopped, 1 when a job failed."""
    parser = argparse.ArgumentParser(prog="python -m progress_cli.demo", description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"the jobs to run: {', '.join(JOBS)} (default: all)")
    parser.add_argument("--rounds", type=int, metavar="N", help="end after this many rounds (default: never)")
    given = parser.parse_args(arguments)
    if unknown := [job for job in given.jobs if job not in JOBS]:
        parser.error(f"unknown job {unknown[0]!r}: choose from {', '.join(JOBS)}")
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
    """Stop the current job: its operation ends as cancelled, and its files are removed. Later signals are ignored."""
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
                pass  # somebody cancelled it: continue with the next job
            except StorageUnavailable as error:
                if rounds is not None:
                    raise
                sys.stderr.write(f"progress_cli.demo: {error.detail}; retrying\n")
        done += 1
    return 0


sys.exit(main())
