"""Wakes a loop that waits for descriptors."""

import os
from contextlib import suppress
from threading import Lock


class Wake:
    """A pipe from this process to itself, which any thread may write to at any time."""

    def __init__(self) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)
        self._lock = Lock()
        self._closed = False

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._reading

    def call(self) -> None:
        """Wake the loop, now or when it waits next."""
        with self._lock:
            if not self._closed:
                with suppress(BlockingIOError):  # full: the loop will wake anyway
                    os.write(self._writing, b".")

    def heard(self) -> None:
        """Discard the calls received so far."""
        with suppress(BlockingIOError):
            os.read(self._reading, 65_536)

    def close(self) -> None:
        """Close the pipe."""
        with self._lock:
            self._closed = True
        os.close(self._reading)
        os.close(self._writing)
