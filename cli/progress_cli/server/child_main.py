"""One process of many: a whole replica on a listening socket it was handed, told by its supervisor what to be.

Standard input is a socket to the supervisor. One line comes (settings and listener, as secrets are not for command
lines), one goes (that it serves, or why it can't), and its end means that the supervisor is no more.
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
    """Serve until told to stop, or until the supervisor dies."""
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
            _fail(supervisor, SetupError(f"Redis refused: {error}"))


async def _serve(settings: Settings, listener: socket.socket, supervisor: socket.socket) -> None:
    loop = asyncio.get_running_loop()

    def bereft() -> None:
        loop.remove_reader(supervisor)
        signal.raise_signal(signal.SIGTERM)

    # The kernel's own word of a parent's death is Linux' alone, and is lost where it came before we could hear it.
    loop.add_reader(supervisor, bereft)
    try:
        await serve(settings, listener, lambda: _tell(supervisor, error=None), among_others=True)
    finally:
        loop.remove_reader(supervisor)


def _fail(supervisor: socket.socket, error: BrokerError) -> None:
    _tell(supervisor, error=error.code, detail=error.detail)
    sys.exit(exit_code(error))


def _tell(supervisor: socket.socket, **words: str | None) -> None:
    with suppress(OSError):  # it died meanwhile, which `bereft` sees to
        supervisor.sendall(json.dumps(words).encode() + b"\n")


if __name__ == "__main__":
    main()
