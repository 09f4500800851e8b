"""The name of the user who runs a command, as workers and watchers see it."""

import getpass
import os
import socket

_MOST = 128


def caller() -> str:
    """Return the names of the user and the host: `ann@desk-3`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"[:_MOST]
