"""Commands as part of the work: what they print is the operation's log, and a cancel ends them.

Bytes come from a pipe (`stream`), become lines as a terminal would leave them (`lines`), which are told to the
operation (`output`), and may say how far the work is (`patterns`). One loop carries them (`running`) from the child's
start to its end (`child`).
"""

from progress_workers.processes.errors import ExitCode, KilledBySignal, ProcessFailed
from progress_workers.processes.run import run_process

__all__ = ["ExitCode", "KilledBySignal", "ProcessFailed", "run_process"]
