"""Which key decides what server a command is sent to."""

from collections.abc import Sequence
from typing import Any

_ANYWHERE = frozenset({"PING", "TIME", "ECHO"})
"""Commands that any server may answer."""

_BY_SERVER = frozenset(
    {
        *("ACL", "BGREWRITEAOF", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DBSIZE", "DEBUG", "FLUSHALL", "FLUSHDB"),
        *(
            "FUNCTION",
            "HELLO",
            "INFO",
            "KEYS",
            "LATENCY",
            "MONITOR",
            "RANDOMKEY",
            "REPLICAOF",
            "ROLE",
            "SCAN",
            "SCRIPT",
        ),
        *("SHUTDOWN", "SLOWLOG", "WAIT", "WAITAOF"),
    }
)
"""Commands that name no key and mean one server: whoever sends them has to say which."""

Words = Sequence[Any]
"""A command: its name, then its arguments."""


def key_of(words: Words) -> str | bytes | None:
    """Return the first key of a command; None if any server may answer it.

    Raises `ValueError` for commands that must be sent to one server by name.
    """
    name: str = words[0]
    key: str | bytes
    match name:
        case "EVALSHA" | "EVAL":
            if not int(words[2]):
                raise ValueError("a script without keys names no server")
            key = words[3]
        case "XREAD":
            key = words[words.index("STREAMS" if "STREAMS" in words else b"STREAMS") + 1]  # as the library writes it
        case "ZINTER":
            key = words[2]
        case _ if name in _ANYWHERE:
            return None
        case _ if name.partition(" ")[0] in _BY_SERVER or len(words) < 2:
            raise ValueError(f"{name} names no key: send it to one server")
        case _:
            key = words[1]
    return key
