"""Commands as part of the work: their output is the operation's log, and a cancel ends them.

`stream` reads bytes from a pipe. `terminal` turns them into lines, as a terminal would show them. `patterns` and
`readings` read the progress from a line. `parts` decides how far that moves the operation: commands show several bars
after each other. `output` does all this for one pipe, and logs the lines. `running` is the loop that does it from the
start to the end of the child process (`child`).
"""

from progress_workers.processes.errors import ExitCode, KilledBySignal, ProcessFailed, ProcessTimedOut
from progress_workers.processes.run import run_process
from progress_workers.processes.run_async import run_process_async

__all__ = ["ExitCode", "KilledBySignal", "ProcessFailed", "ProcessTimedOut", "run_process", "run_process_async"]
