"""Waits for signals: one long request for all operations of this process, which is begun again when there are more."""

import time
from collections.abc import Callable, Mapping
from itertools import islice
from math import inf

import orjson

from progress_broker.errors import BrokerError
from progress_broker.workers import wire
from progress_broker.workers.signals import ArrivedSignal, SignalPosition
from progress_client.http.connection import Connection, LongResponse
from progress_client.http.problems import read_answer

PATH = "/v1/workers/signals"
RESTART_S = 0.1
"""The shortest time between two that were ended: operations that are added meanwhile share one request."""
_SILENCE_S = 45.0
"""How long the server may send nothing. It answers within some 20 seconds."""


class LongRequest:
    """The request that waits. One thread makes it; any thread may end it."""

    def __init__(self, connected: Callable[[], Connection]) -> None:
        self._connected = connected
        self._response: LongResponse | None = None
        self._ended = False
        self._restarted_at = -inf

    def signals(self, positions: Mapping[str, SignalPosition]) -> list[ArrivedSignal]:
        """Return the signals after these positions; wait for the first."""
        watched = dict(islice(positions.items(), wire.MAX_WATCHED))
        body = orjson.dumps({"positions": wire.write_positions(watched)})
        connection = self._connected()
        try:
            with connection.long_request("POST", PATH, body=body, silence_s=_SILENCE_S) as response:
                self._response = response
                if self._ended:
                    response.abort()
                return read_answer(connection.url, response.read(), wire.read_signals)
        except BrokerError:
            if not self._ended:
                raise
        finally:
            self._response = None
        time.sleep(max(0.0, self._restarted_at + RESTART_S - time.monotonic()))
        self._restarted_at, self._ended = time.monotonic(), False
        return []

    def end(self) -> None:
        """End the request, or the next one if none waits now: that may have been made without what was added."""
        self._ended = True
        if (response := self._response) is not None:
            response.abort()
