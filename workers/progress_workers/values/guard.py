"""Calls code of users' objects, such as `__str__`, so that its exceptions do not reach the user's work."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

_passing: tuple[type[BaseException], ...] = (KeyboardInterrupt, SystemExit)


def let_pass(*kinds: type[BaseException]) -> None:
    """Make `attempt` raise exceptions of these kinds. Task queues raise them anywhere in the code, to end a task."""
    global _passing
    _passing = (*_passing, *(kind for kind in kinds if kind not in _passing))


def attempt(call: Callable[..., T], *args: object, otherwise: Callable[[BaseException], U]) -> T | U:
    """Return the result of the call, or the result of `otherwise` for its exception.

    `KeyboardInterrupt` and `SystemExit` are raised, because signal handlers may raise them at any point of the code.
    """
    try:
        return call(*args)
    except _passing:
        raise
    except BaseException as error:  # an object may raise any exception, also `GeneratorExit`
        return otherwise(error)
