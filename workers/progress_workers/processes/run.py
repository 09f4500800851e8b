"""`run_process`: a command as a part of the work."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, Any, Literal

from progress_broker.errors import Invalid
from progress_workers.base import Reporting
from progress_workers.current import current
from progress_workers.processes.child import Place
from progress_workers.processes.errors import failure
from progress_workers.processes.output import OnLine, Output
from progress_workers.processes.patterns import make_pattern
from progress_workers.processes.running import GRACE_S, Running


def run_process(
    command: Sequence[str],
    *,
    operation: Reporting | None = None,
    pattern: str | re.Pattern[str] | None = None,
    ansi: Literal["strip", "keep"] = "strip",
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[Any] | None = None,
    grace_s: float = GRACE_S,
    on_line: OnLine | None = None,
    check: bool = False,
) -> int:
    """Run a command to its end, and tell the operation (the current one unless given) what it prints.

    `command` is a list of words, run as it is and never through a shell. What it writes to stdout becomes log lines
    of level info, and to stderr warnings: decoded as UTF-8 with `�` for what is none, without escape sequences unless
    `ansi` is keep, without blank lines, and cut where a line is very long. Where more lines come than can be sent, the
    log says how many were left out, unless there is an `on_line`. A line that is rewritten after a carriage return,
    as progress bars do, is the operation's message meanwhile; its last form is logged.

    `pattern` says where progress is read from: `bars` looks for `3/10` and `30%` in lines that are rewritten, `auto`
    in any line; a regular expression looks in any line for its groups named `current`, `total`, `percent`, `message`
    or `unit`. By default nowhere, as the operation may count other things. `on_line(text, "stdout" or "stderr")` is
    called with each line in its last form, in this thread.

    `cwd`, `env` and `stdin` are those of `subprocess.Popen`, but that without `stdin` there is nothing to read. The
    command has a session of its own, so a terminal's Ctrl-C reaches this process only.

    Returns the exit code, below zero the signal's number, as `subprocess.run` does; with `check` one other than 0
    raises `ProcessFailed`, a `CalledProcessError` that tells the last lines of stderr. Raises `OSError` if the
    command can't be run. Who leaves the outputs open after its end, such as a daemon it started, is given half a
    second. If the operation is asked to stop, the command and all it started get SIGTERM, and SIGKILL after `grace_s`
    seconds; then it raises `Cancelled`, or what else `raise_if_cancelled` would. Any other exception, such as
    `KeyboardInterrupt`, ends the command likewise.

    It blocks, so from asyncio it is `await asyncio.to_thread(run_process, …)`, which knows the current operation too.
    A cancel of the operation ends the command there as well; cancelling the task alone does not.
    """
    operation = current() if operation is None else operation
    outputs = make_outputs(operation, pattern=pattern, ansi=ansi, on_line=on_line)
    place = Place(cwd, env, subprocess.DEVNULL if stdin is None else stdin)
    operation.raise_if_cancelled()
    with Running(command, outputs, place=place, grace_s=grace_s) as running:
        forget = operation.on_cancel(running.stop)
        try:
            code = running.finish()
        finally:
            forget()
    if running.stopped_for is not None:
        raise running.stopped_for
    if check and code:
        raise failure(code, command, outputs[1].last)
    return code


def make_outputs(
    operation: Reporting, *, pattern: str | re.Pattern[str] | None, ansi: str, on_line: OnLine | None = None
) -> tuple[Output, Output]:
    """Return what takes a command's stdout and stderr; raise `Invalid` for a pattern that is none."""
    if ansi not in ("strip", "keep"):
        raise Invalid(f"ansi is strip or keep, not {ansi!r}", field="ansi")
    finds = make_pattern(pattern)
    out, err = (
        Output(name, operation, pattern=finds, keep_ansi=ansi == "keep", on_line=on_line)
        for name in ("stdout", "stderr")
    )
    return out, err
