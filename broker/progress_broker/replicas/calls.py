"""Questions to all replicas, and their answers.

A question goes through a feed, which every replica reads anyway, and its body through a key that workers can't write.
The answers come back in a stream of the question's own. So replicas need no port to each other.

<prefix>:ask:<id>      what is asked, as JSON; expires after 30 s
<prefix>:answers:<id>  a stream with one answer of each replica, as JSON; expires after 30 s
"""

import asyncio
import json
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import StrEnum
from secrets import token_hex
from typing import Any, NamedTuple, Self

from progress_broker.errors import BrokerError, StorageFull, StorageUnavailable, Unreadable
from progress_broker.model.event import Event
from progress_broker.nodes.pool_settings import BLOCK_MS
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.operations.store import Store
from progress_broker.replicas.presence import present_replicas
from progress_broker.runtime.backoff import backoff_s
from progress_broker.runtime.tasks import Tasks
from progress_broker.storage.internal_entries import publish_internal
from progress_broker.storage.keys import answers_key, question_key
from progress_broker.storage.lanes import lanes_by_node

log = logging.getLogger(__name__)

ASK = b"~ask"
"""The name of the internal entries in the feeds."""

PATIENCE_S = 2.0
"""How long the replicas may take to answer, unless a question says otherwise."""
KEPT_MS = 30_000
_MOST_ANSWERS = 1_000
_SEEN = 1_000
_TRIES = 5


class Question(StrEnum):
    """What replicas can be asked to tell or to do."""

    STREAMS = "streams"
    """Tell which streams are open."""
    KICK = "kick"
    """End a stream."""
    RELOAD = "reload"
    """Read the settings again."""
    DRAIN = "drain"
    """Send all clients to other replicas."""


class Reply(NamedTuple):
    """What one replica answered."""

    replica: str
    body: Mapping[str, Any]


class Replies(NamedTuple):
    """What all replicas answered."""

    answers: Sequence[Reply]
    silent: Sequence[str]
    """The replicas that are present, but did not answer in time."""


Handler = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Answers one kind of question at a replica. What it raises as a `BrokerError` becomes its answer."""


class Answerer:
    """Answers questions at one replica. Use it as an async context manager."""

    def __init__(self, store: Store, replica: str, handlers: Mapping[Question, Handler]) -> None:
        self._store, self._replica, self._handlers = store, replica, handlers
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._tasks = Tasks()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()

    def received(self, event: Event) -> None:
        """Receive an internal entry from a feed. A question that comes again, through another lane, is passed over."""
        id = event.data.decode("latin-1")
        if id in self._seen:
            return
        self._seen[id] = None
        if len(self._seen) > _SEEN:
            self._seen.popitem(last=False)
        self._tasks.spawn(self._answer(id))

    async def _answer(self, id: str) -> None:
        answer: str | None = None  # acted on once, however often Redis has to be asked
        for tries in range(_TRIES):
            try:
                if answer is None and (answer := await self._act(id)) is None:
                    return
                await self._send(id, answer)
                return
            except StorageUnavailable:
                await asyncio.sleep(backoff_s(tries))
            except (StorageFull, Unreadable) as error:
                log.warning("a question of another replica can't be answered: %s", error.detail)
                return

    async def _act(self, id: str) -> str | None:
        """Return the answer, as JSON; None if nobody waits for it any more, or if a worker made the entry up."""
        with storage_errors():
            asked = await self._store.connections.commands.get(question_key(self._store.keyspace.prefix, id))
        return None if asked is None else json.dumps(await self._handled(asked))

    async def _send(self, id: str, answer: str) -> None:
        key = answers_key(self._store.keyspace.prefix, id)
        async with self._store.connections.commands.pipeline(transaction=False) as redis:
            redis.xadd(key, {"replica": self._replica, "body": answer}, maxlen=_MOST_ANSWERS)
            redis.pexpire(key, KEPT_MS)
            with storage_errors():
                await redis.execute()

    async def _handled(self, asked: bytes) -> Mapping[str, Any]:
        try:
            question = json.loads(asked)
            handler = self._handlers.get(question["question"])
            if handler is None:
                return {"error": "invalid", "detail": f"this release does not know the question {question['question']}"}
            return await handler(question["body"])
        except BrokerError as error:
            return {"error": error.code, "detail": error.detail}
        except Exception:
            log.exception("answering a question of another replica failed")
            return {"error": "internal", "detail": "an unexpected error; the log of this replica has it"}


async def ask(
    store: Store,
    question: Question,
    body: Mapping[str, Any],
    *,
    patience_s: float = PATIENCE_S,
    replicas: Collection[str] | None = None,
) -> Replies:
    """Return the answers of all replicas that are present, or of `replicas`, at the latest after `patience_s`.

    A replica acts on a question once: halfway it is asked again, through another server's lane if there is one, because
    an interrupted feed passes over internal entries. Raises `StorageUnavailable` or `StorageFull` if no lane takes the
    question.
    """
    prefix, connections = store.keyspace.prefix, store.connections
    awaited = set(replicas) if replicas is not None else {state.id for state in await present_replicas(store)}
    id = token_hex(16)
    with storage_errors():
        text = json.dumps({"question": question, "body": body})
        await connections.commands.set(question_key(prefix, id), text, px=KEPT_MS)
    lanes = [random.choice(of_node) for of_node in lanes_by_node(connections, store.keyspace)]
    random.shuffle(lanes)
    began = time.monotonic()
    asked, found, after = 0, dict[str, Reply](), "0-0"
    while (left_s := began + patience_s - time.monotonic()) > 0 and (not asked or awaited - found.keys()):
        if asked == 0 or (asked == 1 and left_s <= patience_s / 2):
            await publish_internal(connections, store.keyspace, ASK, id.encode(), lanes[asked % len(lanes)])
            asked += 1
        until_s = left_s if asked > 1 else left_s - patience_s / 2
        after = await _read(store, answers_key(prefix, id), after, until_s, found)
    answers = sorted(found.values())
    return Replies(answers, sorted(awaited - found.keys()))


async def _read(store: Store, key: str, after: str, wait_s: float, found: dict[str, Reply]) -> str:
    """Wait for more answers, and return the position after them."""
    block_ms = max(1, min(BLOCK_MS, round(wait_s * 1000)))
    with storage_errors():
        client = await store.connections.blocking(key)
        reply: Any = await client.execute_command(
            "XREAD", "COUNT", _MOST_ANSWERS, "BLOCK", block_ms, "STREAMS", key, after
        )
    for _, entries in reply or ():
        for position, pairs in entries:
            after = position.decode()
            fields = dict(zip(pairs[::2], pairs[1::2], strict=False))
            replica = fields[b"replica"].decode()
            found[replica] = Reply(replica, json.loads(fields[b"body"]))
    return after
