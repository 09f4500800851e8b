"""Keeps httpx from logging our own requests.

httpx logs each request at INFO. A worker sends ten a second, and if its log is reported, each line would cause another.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_LOGGERS = ("httpx", *(f"httpcore.{name}" for name in ("connection", "http11", "proxy", "socks")))
_ours: ContextVar[bool] = ContextVar("progress_request", default=False)


def _is_of_others(_: logging.LogRecord) -> bool:
    return not _ours.get()


for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_is_of_others)


@contextmanager
def unlogged() -> Iterator[None]:
    """Drop the records of httpx in this thread or task, while requests of ours are sent."""
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)
