"""Commands as part of the work: what they print is the operation's log, and a cancel ends them.

Bytes come from a pipe (`stream`), become lines as a terminal would leave them (`lines`), which are told to the
operation (`output`), and may say how far the work is (`patterns`). One loop carries them (`running`) from the child's
start to its end (`child`).
"""

from progress_workers.processes.child import Child, Place
from progress_workers.processes.errors import ExitCode, KilledBySignal, ProcessFailed, failure
from progress_workers.processes.output import Output
from progress_workers.processes.relay import Interrupted, Relay
from progress_workers.processes.run import make_outputs, run_process
from progress_workers.processes.running import GRACE_S, Running
from progress_workers.processes.terminal import Terminal

__all__ = [
    "GRACE_S",
    "Child",
    "ExitCode",
    "Interrupted",
    "KilledBySignal",
    "Output",
    "Place",
    "ProcessFailed",
    "Relay",
    "Running",
    "Terminal",
    "failure",
    "make_outputs",
    "run_process",
]
