"""Calling code of users' objects, such as `__str__`: what it raises must not reach the user's work."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")

_passing: tuple[type[BaseException], ...] = (KeyboardInterrupt, SystemExit)


def let_pass(*kinds: type[BaseException]) -> None:
    """Have `attempt` raise exceptions of these kinds: a task queue raises them in the middle of anything, to end it."""
    global _passing
    _passing = (*_passing, *(kind for kind in kinds if kind not in _passing))


def attempt(call: Callable[..., T], *args: object, otherwise: Callable[[BaseException], U]) -> T | U:
    """Return what the call returns, or what `otherwise` makes of its exception.

    `KeyboardInterrupt` and `SystemExit` are raised: signal handlers raise them, wherever the code is.
    """
    try:
        return call(*args)
    except _passing:
        raise
    except BaseException as error:  # an object may raise anything, `GeneratorExit` too
        return otherwise(error)
