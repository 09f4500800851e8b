"""Signals that tell a process to stop: streams are sent away before the server that runs the app takes the signal.

A server that is not ours waits for all connections, and streams would keep it waiting.
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
    """Return what a running app has, None while it waits for Redis."""
    return getattr(app.state, "context", None)


def take_signals(stop: Callable[[Handler, int], None]) -> dict[int, tuple[Any, Handler]]:
    """Have `stop` called with each signal, and with the handler that it had; return, by signal, that and the new one.

    Signals that nobody handles, or of a thread that gets none, are left alone.
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

    if hasattr(theirs, "__self__"):  # by which sse-starlette, where others use it, finds the server
        handle.__self__ = theirs.__self__  # type: ignore[attr-defined]
    return handle


@contextmanager
def drained_by_signals(app: FastAPI) -> Iterator[None]:
    """Send an app's streams away when a signal stops it, unless its server does so by itself."""
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
