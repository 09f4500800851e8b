"""Carries reports to a server over HTTP, and signals back."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from progress_broker.errors import BrokerError
from progress_broker.model.operation import NewOperation
from progress_broker.model.publish import Created, Publish, Published
from progress_broker.operations.worker_view import WorkerView
from progress_broker.settings import Settings
from progress_broker.workers import wire
from progress_broker.workers.signals import ArrivedSignal, SignalPosition
from progress_client.http.connection import Connection
from progress_workers.transport.over_http.errors import of_all_reports, of_the_start
from progress_workers.transport.over_http.publishes import Publishes
from progress_workers.transport.over_http.signals import LongRequest


class HttpCarrier:
    """A `Carrier` over the server at PROGRESS_URL."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.after_fork()
        self.peer = f"the server at {self._connection.url}"

    def after_fork(self) -> None:
        """Restart in a forked child: the connections belong to the parent."""
        self._connection = Connection(self._settings)
        self._publishes = Publishes(self._post_publishes)
        self._long_request = LongRequest(self._connection)

    def publish(self, publishes: Sequence[Publish]) -> list[Published | BrokerError]:
        """Send publishes in one request, or in some if they are large."""
        return self._publishes.send(publishes)

    def create(self, operation: str, new: NewOperation, traceparent: str) -> Created:
        """Create an operation, unless it exists with the same values, and notify its parent."""
        body = new.model_dump(mode="json", exclude_unset=True) | {"id": operation}
        return wire.read_created(
            self._ask("/v1/workers/create", body | ({"traceparent": traceparent} if traceparent else {}))
        )

    def view(self, operation: str) -> WorkerView:
        """Return an operation's state; raise `NotFound` or `Gone`."""
        return wire.read_view(self._ask("/v1/workers/view", {"operation": operation}))

    def signals(self, positions: Mapping[str, SignalPosition]) -> list[ArrivedSignal]:
        """Return the signals after these positions. Wait for the first as long as the server does."""
        with of_all_reports(self._connection.url):
            return self._long_request.signals(positions)

    def end_wait(self) -> bool:
        """End the request that waits for signals. It ends without another call."""
        self._long_request.end()
        return False

    def _ask(self, path: str, body: object) -> dict[str, Any]:
        with of_the_start(self._connection.url):
            answer = self._connection.request("POST", path, body=orjson.dumps(body), repeatable=True)
            value: dict[str, Any] = orjson.loads(answer.body)
            return value

    def _post_publishes(self, body: bytes) -> bytes:
        with of_all_reports(self._connection.url):
            return self._connection.request("POST", "/v1/workers/publish", body=body, repeatable=True).body
