"""`run_process`: a command as a part of the work."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Literal, TextIO, TypedDict, Unpack

from progress_broker.errors import InvalidInput
from progress_workers.base import BaseOperation
from progress_workers.current import current
from progress_workers.processes.bars.parts import Parts
from progress_workers.processes.bars.patterns import make_pattern
from progress_workers.processes.child import SpawnOptions, check_command
from progress_workers.processes.errors import ProcessTimedOut, failure
from progress_workers.processes.output import OnLine, Output
from progress_workers.processes.running import GRACE_S, Running


def run_process(
    command: Sequence[str],
    *,
    operation: BaseOperation | None = None,
    pattern: str | re.Pattern[str] | None = None,
    ansi: Literal["strip", "keep"] = "strip",
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[Any] | None = None,
    grace_s: float = GRACE_S,
    on_line: OnLine | None = None,
    timeout: float | None = None,
    echo: bool = False,
    check: bool = False,
) -> int:
    """Run a command to its end, and report its output to the operation (by default the current one).

    `command` is a list of words. It runs as it is, never through a shell. Its stdout becomes log lines of level info,
    and its stderr becomes warnings. Output is decoded as UTF-8, and `�` replaces invalid bytes. Escape sequences are
    removed unless `ansi` is keep; blank lines are left out; very long lines are cut. If lines arrive faster than they
    can be sent, the log says how many were left out; with `on_line`, all are kept. A line that is rewritten, as
    progress bars do, is the operation's message meanwhile; its last form is logged. Outside an operation, the output
    goes to this process's own stdout and stderr, unchanged.

    `pattern` says where progress is read: `bars` looks for `30%`, `3/10` and `1.2/3.4 MB` in lines that are rewritten,
    `auto` in all lines. A regular expression looks in all lines for its groups named `current`, `total`, `percent`,
    `message` or `unit`. By default no progress is read, because the operation may count other things. The newest line
    decides, and a percentage outranks a ratio beside it. Bars that move at the same time are added up.
    A bar with another label or total is another part of the work, for which the percentage begins anew. A bar that has
    reached its end is shown so when the command has succeeded.
    `on_line(text, "stdout" or "stderr")` is called with the last form of each line, in this thread.

    `cwd`, `env` and `stdin` are as in `subprocess.Popen`, but the default `stdin` is empty. The command gets its own
    session, so Ctrl-C in a terminal reaches only this process.

    Returns the exit code; as in `subprocess.run`, a negative number is a signal. With `check`, a code other than 0
    raises `ProcessFailed`, a `CalledProcessError` with the last lines of stderr. Raises `OSError` if the command can't
    be run. If another process keeps the outputs open after the command's end, such as a daemon that it started, the
    call waits half a second for it. If the operation is asked to stop, the command and everything it started get
    SIGTERM, and SIGKILL after `grace_s` seconds. Then the call raises what `raise_if_cancelled` raises, such as
    `Cancelled`. Any other exception, such as `KeyboardInterrupt`, ends the command in the same way. So does the end of
    the `timeout`, in seconds, after which `ProcessTimedOut` is raised, a `subprocess.TimeoutExpired`.

    With `echo`, the output also goes to this process's own stdout and stderr, unchanged.

    The call blocks. In asyncio, use `run_process_async`.
    """
    return run_with(
        command,
        lambda running: None,
        operation=operation,
        pattern=pattern,
        ansi=ansi,
        cwd=cwd,
        env=env,
        stdin=stdin,
        grace_s=grace_s,
        on_line=on_line,
        timeout=timeout,
        echo=echo,
        check=check,
    )


class RunOptions(TypedDict, total=False):
    """The options of `run_process`."""

    operation: BaseOperation | None
    pattern: str | re.Pattern[str] | None
    ansi: Literal["strip", "keep"]
    cwd: str | os.PathLike[str] | None
    env: Mapping[str, str] | None
    stdin: int | IO[Any] | None
    grace_s: float
    on_line: OnLine | None
    timeout: float | None
    echo: bool
    check: bool


def run_with(command: Sequence[str], started: Callable[[Running], None], **options: Unpack[RunOptions]) -> int:
    """Run a command, as `run_process` does; call `started` as soon as it can be stopped."""
    given, timeout, grace_s = options.get("operation"), options.get("timeout"), options.get("grace_s", GRACE_S)
    operation = current() if given is None else given
    if not (timeout is None or (isinstance(timeout, int | float) and timeout > 0)):
        raise InvalidInput(f"timeout must be a number of seconds, greater than 0, not {timeout!r}", field="timeout")
    check_command(command)
    outputs = make_outputs(
        operation,
        pattern=options.get("pattern"),
        ansi=options.get("ansi", "strip"),
        on_line=options.get("on_line"),
    )
    stdin = options.get("stdin")
    place = SpawnOptions(options.get("cwd"), options.get("env"), subprocess.DEVNULL if stdin is None else stdin)
    operation.raise_if_cancelled()
    echoes = options.get("echo") or not operation._reported
    copy_to = (descriptor_of(sys.stdout, 1), descriptor_of(sys.stderr, 2)) if echoes else (None, None)
    late = ProcessTimedOut(command, timeout or 0.0)
    with Running(command, outputs, place=place, grace_s=grace_s, copy_to=copy_to) as running:
        if timeout is not None:
            running.stop_after(timeout, late)
        forget = operation.on_cancel(running.stop)
        started(running)
        try:
            code = running.finish()
        finally:
            forget()
    if running.stopped_for is late:
        raise ProcessTimedOut(command, late.timeout, outputs[1].last)
    if running.stopped_for is not None:
        raise running.stopped_for
    for error in running.copy_errors:
        if error is not None:
            raise error
    if options.get("check") and code:
        raise failure(code, command, outputs[1].last)
    return code


def descriptor_of(stream: TextIO | None, otherwise: int | None = None) -> int | None:
    """Return the descriptor that a standard stream writes to; `otherwise` if it has none, such as one in memory.

    Return None if there is none that is open.
    """
    try:
        if stream is not None:
            stream.flush()
            # The descriptor that a notebook's stream names is the terminal of its server. Cells show the process's own.
            if type(stream).__module__ != "ipykernel.iostream":
                return stream.fileno()
    except (OSError, ValueError):
        pass
    try:
        return None if otherwise is None else os.dup2(otherwise, otherwise)
    except OSError:
        return None


def make_outputs(
    operation: BaseOperation, *, pattern: str | re.Pattern[str] | None, ansi: str, on_line: OnLine | None = None
) -> tuple[Output, Output]:
    """Return the receivers of a command's stdout and stderr; raise `InvalidInput` for an invalid pattern."""
    if ansi not in ("strip", "keep"):
        raise InvalidInput(f"ansi must be strip or keep, not {ansi!r}", field="ansi")
    finds, parts = make_pattern(pattern), Parts()
    out, err = (
        Output(name, operation, pattern=finds, keep_ansi=ansi == "keep", on_line=on_line, parts=parts)
        for name in ("stdout", "stderr")
    )
    out.other, err.other = err, out
    return out, err
