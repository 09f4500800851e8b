"""Signals that stop a process: streams are disconnected before the server that runs the app handles the signal.

Servers other than ours wait for all connections before they stop, and open streams would keep them waiting.
"""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from fastapi import FastAPI

from progress_server.context import Context

Handler = Callable[[int, FrameType | None], Any]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def context_now(app: FastAPI) -> Context | None:
    """Return the context of a running app; None while it waits for Redis."""
    return getattr(app.state, "context", None)


def take_signals(stop: Callable[[Handler, int], None]) -> dict[int, tuple[Any, Handler]]:
    """Call `stop` at each signal that stops the process, with the signal's former handler and its number.

    Return for each signal its former handler and the new one. Signals without a handler are not changed, and none are
    if this is not the main thread.
    """
    taken: dict[int, tuple[Any, Handler]] = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            theirs = signal.getsignal(number)
            if callable(theirs):
                ours = _handler(stop, theirs)
                signal.signal(number, ours)
                taken[number] = (theirs, ours)
    return taken


def _handler(stop: Callable[[Handler, int], None], theirs: Handler) -> Handler:
    def handle(number: int, frame: FrameType | None) -> None:
        stop(theirs, number)

    if hasattr(theirs, "__self__"):  # sse-starlette, if other code uses it, finds the server by this attribute
        handle.__self__ = theirs.__self__  # type: ignore[attr-defined]
    return handle


@contextmanager
def drained_by_signals(app: FastAPI) -> Iterator[None]:
    """Disconnect an app's streams when a signal stops the process, unless the app's server does that itself."""
    if getattr(app.state, "server_drains", False):
        yield
        return
    loop = asyncio.get_running_loop()

    def stop(theirs: Handler, number: int) -> None:
        context = context_now(app)
        if context is not None:
            loop.call_soon_threadsafe(context.hub.drain)
        theirs(number, None)

    taken = take_signals(stop)
    try:
        yield
    finally:
        for number, (theirs, ours) in taken.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, theirs)
