"""Carries reports to a server over HTTP, and signals back."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import orjson

from progress_broker.errors import BrokerError, SetupError
from progress_broker.model.operation import NewOperation
from progress_broker.model.publish import Created, Publish, Published
from progress_broker.operations.worker_view import WorkerView
from progress_broker.settings import Settings
from progress_broker.workers import wire
from progress_broker.workers.signals import ArrivedSignal, SignalPosition
from progress_client.address import server_url
from progress_client.http.connection import Connection
from progress_client.http.problems import read_answer
from progress_workers.transport.over_http.errors import of_all_reports, of_the_start
from progress_workers.transport.over_http.limits import ServerLimits
from progress_workers.transport.over_http.publishes import Publishes
from progress_workers.transport.over_http.signals import LongRequest

T = TypeVar("T")


class HttpCarrier:
    """A `Carrier` over the server at PROGRESS_URL."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = server_url(settings) or ""
        self.peer = f"the server at {self._url}"
        self.after_fork()

    def after_fork(self) -> None:
        """Restart in a forked child: the connections belong to the parent."""
        self._connections: list[Connection] = []
        with suppress(SetupError):  # the next call says so
            self._connected()
        self._publishes = Publishes(self._post_publishes, ServerLimits(self.peer))
        self._long_request = LongRequest(self._connected)

    def publish(self, publishes: Sequence[Publish]) -> list[Published | BrokerError]:
        """Send publishes in one request, or in some if they are large."""
        return self._publishes.send(publishes)

    def create(self, operation: str, new: NewOperation, traceparent: str, *, notify: bool = False) -> Created:
        """Create an operation, unless it exists with the same values, and notify its parent."""
        body = new.model_dump(mode="json", exclude_unset=True) | {"id": operation}
        body |= {"traceparent": traceparent} if traceparent else {}
        body |= {"notify": True} if notify else {}
        return self._ask("/v1/workers/create", body, wire.read_created)

    def view(self, operation: str) -> WorkerView:
        """Return an operation's state; raise `NotFound` or `Gone`."""
        return self._ask("/v1/workers/view", {"operation": operation}, wire.read_view)

    def signals(self, positions: Mapping[str, SignalPosition]) -> list[ArrivedSignal]:
        """Return the signals after these positions. Wait for the first as long as the server does."""
        with of_all_reports():
            return self._long_request.signals(positions)

    def end_wait(self) -> bool:
        """End the request that waits for signals. It ends without another call."""
        self._long_request.end()
        return False

    def rest(self) -> None:
        """Do nothing: only `signals` makes requests for them."""

    def _connected(self) -> Connection:
        """Return the connection. If it could not be made before, try again: a file with a token may come later."""
        if not self._connections:
            self._connections.append(Connection(self._settings))
        return self._connections[0]  # if several threads have made one, only the first is ever opened

    def _ask(self, path: str, body: object, read: Callable[[dict[str, Any]], T]) -> T:
        with of_the_start():
            answer = self._connected().request("POST", path, body=orjson.dumps(body), repeatable=True)
            return read_answer(self._url, answer.body, read)

    def _post_publishes(self, body: bytes, number: int) -> list[Published | BrokerError]:
        with of_all_reports():
            answer = self._connected().request("POST", "/v1/workers/publish", body=body, repeatable=True)
            return read_answer(self._url, answer.body, partial(wire.read_answers, number=number))
