"""Acts on many operations by requests to a server: one for each operation, which its grants and its audit see."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import UTC, datetime

import orjson

from progress_broker.bulk.selection import SAMPLES, Selection, filters_for
from progress_broker.bulk.verbs import Act, Verb
from progress_broker.model.grants import Action
from progress_broker.model.operation import TERMINAL, NewSignal, Status
from progress_broker.operations.retention import PINNED, Keep
from progress_broker.queries.choice import Order
from progress_broker.queries.fields import Pairs, read_filters
from progress_broker.queries.filters import UNFINISHED
from progress_client.http.connection import Answer, AsyncConnection
from progress_client.operators.finding_over_http import OPERATIONS, FinderOverHttp

_PAGE = 200
_ACCEPTED = 202


class ManyOverHttp(FinderOverHttp):
    """Asks a server. `by` is who does, for a server that does not know its callers."""

    def __init__(self, connection: AsyncConnection, by: str) -> None:
        super().__init__(connection)
        self._by = by

    def cancel(self, *, reason: str | None, force: bool) -> Verb:
        """Return what asks workers to stop."""
        body = orjson.dumps({"reason": reason, "by": self._by, "force": force})
        act = _act(lambda id: self._ask("POST", f"{id}/cancel", body), lambda answer: answer.status == _ACCEPTED)
        return Verb("cancel", Action.CANCEL, UNFINISHED, act)

    def signal(self, sent: NewSignal) -> Verb:
        """Return what sends a signal to workers."""
        body = sent.model_dump_json().encode()
        act = _act(lambda id: self._ask("POST", f"{id}/signals", body, repeatable=False))  # workers would get it twice
        return Verb("signal", Action.CANCEL, UNFINISHED, act)

    def delete(self, *, force: bool) -> Verb:
        """Return what deletes operations."""
        query = [("force", "true")] if force else []
        act = _act(lambda id: self._ask("DELETE", id, query=query))
        return Verb("delete", Action.ADMIN, frozenset(Status) if force else TERMINAL, act)

    def retain(self, keep: Keep | None) -> Verb:
        """Return what says how long operations are kept."""
        asked = {"pinned": True} if keep == PINNED else {"retention_s": None if keep is None else keep.ended_s}
        body = orjson.dumps(asked)
        return Verb("retain", Action.ADMIN, frozenset(Status), _act(lambda id: self._ask("PATCH", id, body)))

    async def select(self, verb: Verb, query: Pairs, most: int) -> Selection:
        """Count what a query chooses."""
        number, samples, away = 0, list[str](), set[int]()
        async for ids in self.found(verb, query, away):
            number += len(ids)
            samples += ids[: SAMPLES - len(samples)]
            if number > most:
                break
        return Selection(min(number, most + 1), samples, sorted(away))

    async def found(self, verb: Verb, query: Pairs, away: set[int]) -> AsyncGenerator[Sequence[str]]:
        """Yield the ids of what a query chooses, in the order of creation, where a page misses nothing that changes."""
        statuses = filters_for(verb, read_filters(query, round(1000 * datetime.now(UTC).timestamp()))).statuses
        narrowed = [(name, text) for name, text in query if name != "status"]
        if statuses != frozenset(Status):
            narrowed += [("status", status.value) for status in sorted(statuses)]
        cursor = None
        while True:
            page = await self.page(tuple(narrowed), order=Order.CREATED, limit=_PAGE, cursor=cursor)
            away.update(page.lanes_away)
            yield [operation.id for operation in page.operations]
            cursor = page.next_cursor
            if cursor is None:
                return

    async def record(self, verb: Verb, target: str, detail: str) -> None:
        """Do nothing: the server records each call."""

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        query: Sequence[tuple[str, str]] = (),
        *,
        repeatable: bool = True,
    ) -> Answer:
        url = f"{OPERATIONS}/{path}"
        return await self._connection.request(method, url, body=body, query=query, repeatable=repeatable)


def _act(ask: Callable[[str], Awaitable[Answer]], has_changed: Callable[[Answer], bool] = lambda _: True) -> Act:
    async def act(operation: str) -> bool:
        return has_changed(await ask(operation))

    return act
