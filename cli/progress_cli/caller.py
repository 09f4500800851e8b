"""Who runs a command, as workers and watchers are told."""

import getpass
import os
import socket

_MOST = 128


def caller() -> str:
    """Return the user's name and the host's: `ann@desk-3`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"[:_MOST]
