"""The calls of workers that have no Redis: create, view, publish for many operations at once, and wait for signals.

docs/protocol.md has their rules. The SDK makes them if PROGRESS_URL is set.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import orjson
from fastapi import APIRouter, Request
from pydantic import TypeAdapter
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from progress_broker.errors import BrokerError, Draining, InvalidInput, StorageFull, StorageUnavailable
from progress_broker.model.grants import Action
from progress_broker.model.operation import NewOperation
from progress_broker.model.publish import Publish, Published
from progress_broker.model.validation import read_json, validated
from progress_broker.storage.lanes import is_divided
from progress_broker.workers import wire
from progress_broker.workers.signals import ArrivedSignal, SignalPosition, SignalWait, signals_after
from progress_server.auth.authorization import require_creation, require_permission, require_permission_of
from progress_server.auth.guard import guard_of
from progress_server.auth.principal import Principal, principal_of
from progress_server.context import Context, InContext, context_of
from progress_server.http.answers import answer
from progress_server.http.bodies import read_body
from progress_server.http.openapi import rejections
from progress_server.http.paths import WORKER_SIGNALS
from progress_server.http.query_names import CheckedRoute
from progress_server.middleware.audit import note
from progress_server.routes.publish import STORED
from progress_server.routes.worker_bodies import (
    Signals,
    SignalsRequest,
    WorkerCreated,
    WorkerCreation,
    WorkerPublished,
    WorkerPublishes,
    WorkerViewed,
    WorkerViewRequest,
)

router = APIRouter(tags=["workers"], route_class=CheckedRoute)

WAIT_S = 20.0
"""How long a request for signals waits. Proxies usually wait a minute."""
_SOON_S = 1.0


def _body_of(model: Any) -> dict[str, Any]:
    schema = TypeAdapter(model).json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)  # the description has them
    return {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": True}}


async def _read_object(request: Request, names: frozenset[str]) -> dict[str, Any]:
    value = read_json(await read_body(request, context_of(request).settings.max_body_bytes))
    if not isinstance(value, dict):
        raise InvalidInput("the body must be a JSON object")
    if unknown := sorted(value.keys() - names):
        raise InvalidInput(f"{unknown[0][:64]}: there is no such field here", field=unknown[0][:64])
    return value


@router.post(
    "/v1/workers/create",
    status_code=201,
    response_model=WorkerCreated,
    openapi_extra=_body_of(WorkerCreation),
    responses={
        200: {"description": "It exists already, with the same body.", "model": WorkerCreated},
        **rejections("operation-exists", "gone", "not-found"),
    },
)
async def create_for_worker(request: Request, context: InContext) -> Response:
    """Create an operation, as `POST /v1/operations` does, for a worker that reports it.

    Repeating the call with the same id and the same body succeeds and changes nothing.
    """
    value = await _read_object(request, frozenset(WorkerCreation.model_fields))
    traceparent = wire.read_traceparent(value)
    value.pop("traceparent", None)
    notify = wire.read_notify(value)
    value.pop("notify", None)
    new = await require_creation(request, context, validated(NewOperation, value))
    operation = new.id or secrets.token_hex(10)
    note(request.scope, operation)
    created = await context.store.create_for_worker(operation, new, traceparent, notify=notify)
    return answer(wire.write_created(operation, created), 201 if created.new else 200)


@router.post(
    "/v1/workers/view",
    response_model=WorkerViewed,
    openapi_extra=_body_of(WorkerViewRequest),
    responses=rejections("not-found", "gone"),
)
async def view_for_worker(request: Request, context: InContext) -> Response:
    """Get what a worker needs of an operation before it reports: its status, attempt, lease, progress and cancel."""
    operation = wire.read_operation(await _read_object(request, frozenset({"operation"})))
    await require_permission(request, context, Action.PUBLISH, operation)
    return answer(wire.write_view(await context.store.worker_view(operation)))


@router.post("/v1/workers/publish", response_model=list[WorkerPublished], openapi_extra=_body_of(WorkerPublishes))
async def publish_for_worker(request: Request, context: InContext) -> Response:
    """Publish to many operations at once. Each publish has an answer of its own, in the same order.

    A publish that is rejected does not affect the others; but if the form of one is invalid, nothing is stored. All of
    them may be sent again: with `producer` and `seq`, what was stored before is not stored twice.
    """
    values = read_json(await read_body(request, context.settings.max_body_bytes))
    if not isinstance(values, list) or len(values) > wire.MAX_PUBLISHES:
        raise InvalidInput(f"the body must be a list of at most {wire.MAX_PUBLISHES} publishes")
    answers = await _publish(values, principal_of(request), context)
    return answer([wire.write_answer(one) for one in answers])


async def _publish(
    values: Sequence[object], principal: Principal, context: Context
) -> Sequence[Published | BrokerError]:
    read = [wire.read_publish(value, context.settings) for value in values]
    publishes = [one for one in read if isinstance(one, Publish)]
    rejected = await _rejections([one.operation for one in publishes], principal, context)
    admitted = [one for one in publishes if one.operation not in rejected]
    outcome, stored = "internal", list[Published | BrokerError]()
    try:
        stored = await context.store.publish_many(admitted)
    except BrokerError as error:
        outcome = error.code
        raise
    finally:
        tally, outcomes = context.hub.tally, [_outcome(one) for one in stored] or [outcome] * len(admitted)
        for publish, of in zip(admitted, outcomes, strict=True):
            tally.published[of] += len(publish.entries)
            tally.published_bytes[of] += sum([len(entry.data) for entry in publish.entries])
    answers = iter(stored)
    return [one if not isinstance(one, Publish) else rejected.get(one.operation) or next(answers) for one in read]


def _outcome(one: Published | BrokerError) -> str:
    return one.code if isinstance(one, BrokerError) else STORED


async def _rejections(operations: Sequence[str], principal: Principal, context: Context) -> Mapping[str, BrokerError]:
    """Return why the caller may not publish to some of the operations."""
    decide = principal.grants.decide_by_id
    unknown = [one for one in dict.fromkeys(operations) if not decide(Action.PUBLISH, one)]
    found = await asyncio.gather(*(_rejection(one, principal, context) for one in unknown))
    return {one: error for one, error in zip(unknown, found, strict=True) if error is not None}


async def _rejection(operation: str, principal: Principal, context: Context) -> BrokerError | None:
    try:
        await require_permission_of(principal, context, Action.PUBLISH, operation)
    except (StorageUnavailable, StorageFull) as error:
        if not is_divided(context.store.connections, context.store.keyspace):
            raise
        return error  # operations on other servers must not wait for this one
    except BrokerError as error:
        return error
    return None


# Signals


@router.post(
    WORKER_SIGNALS,
    response_model=Signals,
    openapi_extra=_body_of(SignalsRequest),
    responses=rejections("too-many-streams", "at-capacity", "draining"),
)
async def signals_for_worker(request: Request, context: InContext) -> Response:
    """Get the signals of many operations after the positions that were read, or wait some 20 seconds for the first.

    Operations that do not exist, or to which the caller may not publish, have none. The response begins at once, with
    a space before the JSON. It counts as a stream.
    """
    value = await _read_object(request, frozenset({"positions"}))
    wanted, principal = wire.read_positions(value.get("positions")), principal_of(request)
    rejected = await _rejections(list(wanted), principal, context)
    positions = {operation: at for operation, at in wanted.items() if operation not in rejected}
    with ExitStack() as entered:
        wait = entered.enter_context(context.hub.signal_waits.waiting(positions))  # before the first read
        found = await _read(context, positions)
        if found:
            return answer(_signals(found))
        if context.hub.signal_waits.closed:
            raise _draining()
        return _LateSignals(wait, positions, request, entered.pop_all())


async def _read(context: Context, positions: Mapping[str, SignalPosition]) -> list[ArrivedSignal]:
    return await signals_after(context.store.connections, context.store.keyspace, positions)


def _draining() -> Draining:
    error = Draining()
    error.retry_s = _SOON_S  # another replica has an answer at once, and until then no cancel arrives
    return error


def _signals(found: Sequence[ArrivedSignal]) -> dict[str, Any]:
    return {"signals": [wire.write_signal(one) for one in found]}


class _LateSignals(Response):
    """Signals that have not come yet. The response begins before them, so that the worker can end it at any time."""

    def __init__(
        self, wait: SignalWait, positions: Mapping[str, SignalPosition], request: Request, entered: ExitStack
    ) -> None:
        # Proxies must pass its beginning on at once.
        super().__init__(None, 200, {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}, "application/json")
        del self.headers["content-length"]
        self._wait, self._positions, self._entered = wait, positions, entered
        self._context, self._revocation = context_of(request), guard_of(request).revocation
        self._principal = principal_of(request)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin the response, and end it with the first signals, or without any after `WAIT_S`."""
        with self._entered:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            gone = asyncio.create_task(_gone(receive))
            gone.add_done_callback(lambda _: self._wait.wake(None))
            found: Sequence[ArrivedSignal] = ()
            try:
                # What fails here fails again at the worker's next request, which can be told why.
                with suppress(TimeoutError, StorageUnavailable, StorageFull):
                    async with asyncio.timeout(min(WAIT_S, self._context.settings.max_long_poll_s)):
                        found = await self._first(gone)
            finally:
                gone.cancel()
            await send({"type": "http.response.body", "body": orjson.dumps(_signals(found)), "more_body": False})

    async def _first(self, gone: "asyncio.Task[None]") -> Sequence[ArrivedSignal]:
        waits, found = self._context.hub.signal_waits, list[ArrivedSignal]()
        while not found:
            changed = await self._wait.changed(self._positions)
            if gone.done() or waits.closed or self._revocation.is_expired_or_revoked(self._principal):
                return ()
            found = await _read(self._context, {name: self._positions[name] for name in changed})
        return found


async def _gone(receive: Receive) -> None:
    """Return when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
