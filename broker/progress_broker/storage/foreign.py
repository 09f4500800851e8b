"""What another program wrote under our keys is told of in the log: once, however often it is met."""

import logging
from functools import lru_cache

log = logging.getLogger(__name__)

_REMEMBERED = 4096


@lru_cache(maxsize=_REMEMBERED)
def warn_once(where: str, what: str) -> None:
    """Log what was found, unless that has been logged."""
    log.warning("%s: %s", where, what, extra={"where": where})
