"""The carrier of this process: calls go to Redis in one round trip, and each comes back with a reply of its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis.exceptions

from progress_broker.errors import StorageUnavailable
from progress_broker.storage.redis_errors import storage_error
from progress_broker.storage.scripts import Call


class CallRefused(StorageUnavailable):
    """Redis replied to one call with an error that says nothing of Redis as a whole; others may go through."""


def carry(client: Any, calls: Sequence[Call]) -> list[Any]:
    """Send calls in one round trip; return for each the script's reply, or the storage error that it failed with.

    A script refuses by a reply. So whatever Redis calls an error, also one that nobody has heard of, may pass, and is
    `StorageUnavailable` or `StorageFull`. Raises these if the connection failed, and then any of the calls may have
    run: only what may be repeated can be carried.
    """
    with errors_that_may_pass():
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
def errors_that_may_pass() -> Iterator[None]:
    """Raise every error of Redis or of the network as a storage error."""
    try:
        yield
    except (redis.exceptions.RedisError, OSError) as error:
        raise _translated(error) from None


def _pipeline(client: Any, calls: Sequence[Call]) -> list[Any]:
    with client.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.execute_command(*call.command())
        return list(pipeline.execute(raise_on_error=False))


def _translated(reply: Any) -> Any:
    if not isinstance(reply, redis.exceptions.RedisError | OSError):
        return reply
    return storage_error(reply) or CallRefused(f"Redis refuses the call: {reply}")
