"""Data that another program wrote to our keys: it is skipped, and logged once."""

import logging
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Any

from progress_broker.errors import Unreadable
from progress_broker.nodes.redis_errors import storage_errors

log = logging.getLogger(__name__)

_REMEMBERED = 4096


@lru_cache(maxsize=_REMEMBERED)
def warn_once(where: str, what: str) -> None:
    """Log the warning `where: what`, unless the same one was already logged."""
    log.warning("%s: %s", where, what, extra={"where": where})


def readable(replies: Iterable[Any]) -> list[Any]:
    """Return a pipeline's replies, with None for keys that another program has overwritten with another type.

    If a reply is any other error, it is raised.
    """
    found: list[Any] = []
    for reply in replies:
        with suppress(Unreadable), storage_errors():
            if isinstance(reply, Exception):
                raise reply
            found.append(reply)
            continue
        found.append(None)
    return found
