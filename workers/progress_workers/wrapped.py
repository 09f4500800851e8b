"""A function that reports to one operation wherever it runs: in other threads, and in the processes of a pool."""

import inspect
import logging
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Generic, ParamSpec, TypeVar

from progress_broker.errors import BrokerError
from progress_broker.settings import Settings
from progress_workers.base import BaseOperation
from progress_workers.current import enter, leave
from progress_workers.null import NULL_OPERATION

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

Join = Callable[..., BaseOperation]
MAX_JOINED = 16
"""How many operations a process of a pool remembers, so that not each call has to join anew."""


class Wrapped(Generic[P, R]):
    """A function during whose calls `current()` is an operation. It can be pickled if the function can.

    In another process it joins the operation, as one of several that count. After each call there, it waits until the
    reports are stored, because the operation may end as soon as the results are known.
    """

    def __init__(self, function: Callable[P, R], operation: BaseOperation, join: Join) -> None:
        if inspect.iscoroutinefunction(function):
            raise TypeError("wrap is for functions that run in threads or processes; asyncio's tasks need no wrap")
        self._function, self._join = function, join
        self._operation: BaseOperation | None = operation
        self._id, self._settings = operation.id, operation._settings

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_operation": None}

    def __repr__(self) -> str:
        return f"<{self._function!r}, which reports to operation {self._id}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function while the operation is the current one."""
        operation = self._operation or _joined(self._join, self._id, self._settings)
        enter(operation)
        try:
            return self._function(*args, **kwargs)
        finally:
            leave(operation)
            if operation is not NULL_OPERATION and (self._operation is None or operation._pid != os.getpid()):
                operation._flush(operation._link.exit_timeout_s())


def _joined(join: Join, id: str, settings: Settings) -> BaseOperation:
    try:
        return _join(join, id, settings)
    except BrokerError as error:  # whatever it is, the work must be done
        logger.warning("a part of the work of operation %s runs without being reported: %s", id, error)
        return NULL_OPERATION


@lru_cache(maxsize=MAX_JOINED)
def _join(join: Join, id: str, settings: Settings) -> BaseOperation:
    return join(id, end_on_exit=False, settings=settings)
