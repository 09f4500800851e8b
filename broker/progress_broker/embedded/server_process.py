"""A Redis or Valkey server as a child process: started without secrets on its command line, restarted, stopped."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

log = logging.getLogger(__name__)

STOP_S = 10
"""How long a server may take to write its data and end before it is killed."""
QUICK_S = 5
MAX_LOG_BYTES = 1 << 20
"""A log above this size is renamed when a server starts, and replaces the one renamed before."""
MAX_QUICK = 3
"""A server that ends this many times in a row within `QUICK_S` after its start is not restarted."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def ending_with_us() -> Callable[[], None]:
    """Return what a child runs before its program, so that it ends with this process.

    The child gets its own process group, so Ctrl-C in the terminal does not reach it: it must end after us. A parent
    that is killed with SIGKILL can't stop its children, so the kernel sends them SIGTERM. For the kernel, the parent is
    the *thread* that forked: start the child from a thread that lives as long as the child should. Only Linux has this.
    """
    parent = os.getpid()

    def prepare() -> None:
        os.setpgid(0, 0)
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:  # the parent ended before the call
                os._exit(1)

    return prepare


class PrivateServer:
    """A server process, and the thread that starts it, waits for its end, and restarts it."""

    def __init__(self, binary: str, home: Path, socket: Path, password: str, lock: int, max_bytes: int) -> None:
        self.log_path = home / "redis.log"
        self._log_begins = 0
        """Where the log of the current server begins: that of a server that crashed is kept before it."""
        self.ended = threading.Event()
        self._binary, self._home, self._lock = binary, home, lock
        self._config = _config(home, socket, password, max_bytes)
        self._process: subprocess.Popen[bytes] | None = None
        self._changing = threading.Lock()
        self._supervised = False
        self._stopping = False
        self._why = ""
        self._thread = threading.Thread(target=self._run, name="embedded-redis", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changing:
            self._stopping = True
            process = self._process
        if process is not None:
            process.terminate()
        self._thread.join(STOP_S)
        if self._thread.is_alive() and process is not None:
            process.kill()
            self._thread.join()

    def supervise(self) -> None:
        """From now on, restart the server if it ends: it has proven that it can run."""
        self._supervised = True

    def last_words(self) -> str:
        """Return why the server ended, if that is known: the last line of its log."""
        try:
            lines = self.log_path.read_bytes()[self._log_begins :].decode("utf-8", "replace").splitlines()
        except OSError:
            lines = []
        last_line = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return last_line or self._why or "the server does not answer"

    def _run(self) -> None:
        quick = 0
        try:
            while (process := self._spawn()) is not None:
                began = time.monotonic()
                code = process.wait()
                quick = quick + 1 if time.monotonic() - began < QUICK_S else 0
                self._why = f"the server ended with exit code {code}"
                if self._stopping or not self._supervised:
                    return
                if quick == MAX_QUICK:
                    log.error(
                        "the private Redis ended repeatedly and is not restarted: %s; see %s",
                        self.last_words(),
                        self.log_path,
                    )
                    return
                log.warning("the private Redis ended (exit code %s) and is restarted", code)
        except OSError as error:
            self._why = str(error)
        finally:
            self.ended.set()

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        with self._changing:
            if self._stopping:
                return None
            output = self._open_log()
            try:
                process = self._process = subprocess.Popen(
                    [
                        self._binary,
                        "-",
                    ],  # the configuration is sent on its input, because other users can read command lines
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    cwd=self._home,
                    umask=0o077,
                    pass_fds=[self._lock],
                    preexec_fn=ending_with_us(),
                )
            finally:
                os.close(output)
        if process.stdin is not None:
            with suppress(BrokenPipeError), process.stdin as stdin:  # the server has ended; its log says why
                stdin.write(self._config)
        return process

    def _open_log(self) -> int:
        with suppress(FileNotFoundError):
            if self.log_path.stat().st_size > MAX_LOG_BYTES:
                self.log_path.replace(self.log_path.with_suffix(".log.1"))
        output = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._log_begins = os.fstat(output).st_size
        return output


def _config(home: Path, socket: Path, password: str, max_bytes: int) -> bytes:
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "600",
        "requirepass": password,
        "protected-mode": "yes",
        "databases": "1",
        "daemonize": "no",
        "dir": str(home),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": str(max_bytes),
        "maxmemory-policy": "noeviction",
    }
    return "".join(f"{name} {_quoted(value)}\n" for name, value in settings.items()).encode()


def _quoted(value: str) -> str:
    """Return a value quoted for Redis' configuration. Paths may contain any character."""
    return '"' + "".join(chr(b) if chr(b).isalnum() and b < 128 else f"\\x{b:02x}" for b in os.fsencode(value)) + '"'
