"""Commands as part of the work: their output is the operation's log, and a cancel ends them.

`stream` reads bytes from a pipe. `lines` turns them into lines, as a terminal would show them. `output` reports the
lines to the operation. `patterns` reads the progress from them. `running` is the loop that does this from the start to
the end of the child process (`child`).
"""

from progress_workers.processes.errors import ExitCode, KilledBySignal, ProcessFailed
from progress_workers.processes.run import run_process

__all__ = ["ExitCode", "KilledBySignal", "ProcessFailed", "run_process"]
