"""Sends calls to Redis in one round trip, and returns a separate reply for each."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import redis.exceptions

from progress_broker.errors import LaneAway, SlotMoving, StorageFull, StorageUnavailable
from progress_broker.nodes.calls import Call
from progress_broker.nodes.redis_errors import storage_error
from progress_broker.nodes.replicas import ROLE, Replicas, Wait
from progress_workers.transport.carrier import CallRejected, ServerAway
from progress_workers.transport.over_redis.cluster.node import Waits
from progress_workers.transport.over_redis.cluster.nodes import ClusterNodes

_PLAIN: Mapping[str, Any] = {}


def run_durably(client: Any, calls: Sequence[Call], replicas: Replicas, most_ms: int) -> tuple[list[Any], bool | None]:
    """Do as `run_pipeline`, and wait for replicas. Also return whether they have it; None: there are none."""
    now = time.monotonic()
    if replicas.ask(now):
        with errors_that_may_pass():
            try:
                replicas.learn(client.execute_command(ROLE), now)
            except redis.exceptions.ResponseError as error:  # not permitted, or unknown
                replicas.learn(error, now)
    wait = replicas.wait(most_ms, now)
    if wait is None:
        return run_pipeline(client, calls), None
    *replies, confirmed = run_pipeline(client, calls, wait)
    return replies, replicas.confirmed(confirmed, now)


def run_pipeline(client: Any, calls: Sequence[Call], last: Wait | None = None) -> list[Any]:
    """Send calls in one round trip. Return for each call the script's reply, or the storage error of that call.

    `last` is a command to send after them. Its reply comes last, as it is.

    A script rejects a call with a normal reply. So every Redis error, known or unknown, counts as temporary: it becomes
    `StorageUnavailable` or `StorageFull`. If the connection failed, this function raises one of these. Then each of the
    calls may or may not have run, so callers must only send calls that can be repeated.
    """
    with errors_that_may_pass():
        replies = _pipeline(client, calls, last)
        # A restart or a promotion empties the server's script cache.
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
        if unknown:
            for text in {calls[i].script.text for i in unknown}:
                client.script_load(text)
            again = _pipeline(client, [calls[i] for i in unknown], last)
            for i, reply in zip([*unknown, *range(len(calls), len(replies))], again, strict=True):
                replies[i] = reply
    return [_translated(reply) for reply in replies[: len(calls)]] + replies[len(calls) :]


def run_on_nodes(
    nodes: ClusterNodes, calls: Sequence[Call], patience_s: float, durable: Collection[int] = (), most_ms: int = 0
) -> tuple[list[Any], Sequence[bool | None]]:
    """Run calls on the nodes of a Cluster that have their keys, as `run_pipeline` does on one server.

    What a node does not answer is `ServerAway` for its calls alone, and what it can't do now, as when it is full,
    `CallRejected`; if all nodes are away, both are storage errors. A call without an answer may or may not have run.
    Also wait until replicas have what the `durable` ones wrote; return for each whether they do.
    """
    with errors_that_may_pass():
        waits = Waits(frozenset(durable), most_ms)
        commands = [(call.command(), _PLAIN) for call in calls]
        replies = nodes.carry(commands, [call.script.text for call in calls], patience_s, waits)
    alone = bool(nodes.known.well)
    return [_of_node(reply, alone=alone) for reply in replies], [waits.confirmed.get(at) for at in range(len(calls))]


def _of_node(reply: Any, *, alone: bool) -> Any:
    if isinstance(reply, OSError | redis.exceptions.ConnectionError | redis.exceptions.TimeoutError):
        error = storage_error(reply) or StorageUnavailable(str(reply))
        return ServerAway(error.detail) if alone else error
    answer = _translated(reply)
    return CallRejected(answer.detail) if alone and isinstance(answer, StorageUnavailable | StorageFull) else answer


@contextmanager
def errors_that_may_pass() -> Iterator[None]:
    """Raise every Redis or network error as a storage error."""
    try:
        yield
    except (redis.exceptions.RedisError, OSError) as error:
        raise _translated(error) from None


def _pipeline(client: Any, calls: Sequence[Call], last: Wait | None) -> list[Any]:
    with client.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.execute_command(*call.command())
        if last is not None:
            pipeline.execute_command(*last)
        return list(pipeline.execute(raise_on_error=False))


def _translated(reply: Any) -> Any:
    if not isinstance(reply, redis.exceptions.RedisError | OSError):
        return reply
    error = storage_error(reply)
    if isinstance(error, LaneAway | SlotMoving):
        return ServerAway(error.detail)
    if isinstance(error, StorageUnavailable | StorageFull):
        return error
    return CallRejected(error.detail if error else f"Redis rejected a script call: {reply}")
