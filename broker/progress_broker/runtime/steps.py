"""Runs rules that do no I/O: generators that yield what to do next, and are sent what came of it."""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

Step = TypeVar("Step")
Result = TypeVar("Result")
Errors = type[Exception] | tuple[type[Exception], ...]


def run_steps(rules: Generator[Step, Any, Result], do: Callable[[Step], Any], sent: Errors = ()) -> Result:
    """Do each step; return what the generator returns. Errors of these classes are sent to it, as what came of it."""
    came: Any = None
    while True:
        try:
            step = rules.send(came)
        except StopIteration as over:
            result: Result = over.value
            return result
        try:
            came = do(step)
        except sent as error:
            came = error


async def run_steps_async(
    rules: Generator[Step, Any, Result], do: Callable[[Step], Awaitable[Any]], sent: Errors = ()
) -> Result:
    """Do as `run_steps`, with asyncio."""
    came: Any = None
    while True:
        try:
            step = rules.send(came)
        except StopIteration as over:
            result: Result = over.value
            return result
        try:
            came = await do(step)
        except sent as error:
            came = error
