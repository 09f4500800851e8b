"""The carrier of this process: calls go to Redis in one round trip, and each comes back with a reply of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis.exceptions

from broker.connections import storage_errors
from broker.errors import BrokerError, StorageUnavailable
from broker.scripts import Call


def carry(client: Any, calls: Sequence[Call]) -> list[Any]:
    """Send calls in one round trip; return for each the script's reply, or the `BrokerError` it failed with.

    Raises `StorageUnavailable` if the connection failed, and then any of the calls may have run: only what may be
    repeated can be carried.
    """
    with _refused_as_unavailable(), storage_errors():
        replies = _pipeline(client, calls)
        # A restart or a promotion empties the server's cache of scripts.
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
        if unknown:
            for text in {calls[i].script.text for i in unknown}:
                client.script_load(text)
            again = _pipeline(client, [calls[i] for i in unknown])
            for i, reply in zip(unknown, again, strict=True):
                replies[i] = reply
    return [_translated(reply) for reply in replies]


@contextmanager
def _refused_as_unavailable() -> Iterator[None]:
    """What is refused before any call is run, such as the connection's own commands, may be allowed later."""
    try:
        yield
    except redis.exceptions.ResponseError as error:
        raise StorageUnavailable(f"Redis refuses this connection: {error}") from None


def _pipeline(client: Any, calls: Sequence[Call]) -> list[Any]:
    with client.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.execute_command(*call.command())
        return list(pipeline.execute(raise_on_error=False))


def _translated(reply: Any) -> Any:
    if not isinstance(reply, redis.exceptions.RedisError):
        return reply
    try:
        with storage_errors():
            raise reply
    except BrokerError as error:
        return error
    except redis.exceptions.RedisError as error:
        return BrokerError(f"Redis refused the call: {error}")
