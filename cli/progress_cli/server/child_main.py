"""One of several server processes. It serves on a socket that it inherits, with settings from its supervisor.

Standard input is a socket to the supervisor. The supervisor sends one line with the settings and the listener (secrets
must not be on a command line). This process sends one line: that it serves, or why it can't. If the connection closes,
the supervisor has died.
"""

import asyncio
import json
import signal
import socket
import sys
from contextlib import suppress

import redis.exceptions

from progress_broker.errors import BrokerError, SetupError
from progress_broker.settings import Settings
from progress_cli.exit_codes import exit_code
from progress_cli.logging import log_as
from progress_cli.server.run import serve
from progress_cli.shutdown import until_stopped
from progress_server.server.start import run_loop


def main() -> None:
    """Serve until stopped, or until the supervisor dies."""
    with until_stopped(), socket.socket(fileno=sys.stdin.fileno()) as supervisor:
        line = supervisor.makefile("rb").readline()
        if not line:
            return
        orders = json.loads(line)
        settings = Settings(**orders["settings"], _env_file=None)
        log_as(settings, "%(process)d: ")
        try:
            run_loop(_serve(settings, socket.socket(fileno=orders["listener"]), supervisor))
        except BrokerError as error:
            _fail(supervisor, error)
        except redis.exceptions.RedisError as error:
            _fail(
                supervisor,
                SetupError(f"Redis returned an error: {error}; check PROGRESS_REDIS_URL and what its user may do"),
            )


async def _serve(settings: Settings, listener: socket.socket, supervisor: socket.socket) -> None:
    loop = asyncio.get_running_loop()

    def bereft() -> None:
        loop.remove_reader(supervisor)
        signal.raise_signal(signal.SIGTERM)

    # The kernel's signal at a parent's death exists only on Linux, and is lost if it comes before we can handle it.
    loop.add_reader(supervisor, bereft)
    try:
        await serve(settings, listener, lambda: _tell(supervisor, error=None), among_others=True)
    finally:
        loop.remove_reader(supervisor)


def _fail(supervisor: socket.socket, error: BrokerError) -> None:
    _tell(supervisor, error=error.code, detail=error.detail)
    sys.exit(exit_code(error))


def _tell(supervisor: socket.socket, **words: str | None) -> None:
    with suppress(OSError):  # the supervisor died meanwhile, which `bereft` handles
        supervisor.sendall(json.dumps(words).encode() + b"\n")


if __name__ == "__main__":
    main()
