"""Copies of what is in Redis, which replicas read again after a change only.

A word in the meta key is another random one after each change, so that all words are read with one command. It is no
counter: if Redis lost a counter and restarted it, it could reach an old value again.
"""

import secrets
from collections.abc import Sequence
from typing import ClassVar

from progress_broker.nodes.calls import Call
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.storage.connections import Connections
from progress_broker.storage.keys import Keyspace, meta_key
from progress_broker.storage.scripts import SET_FIELDS


class Copy:
    """A replica's copy of something. It stays valid while Redis is unavailable."""

    WORD: ClassVar[str]
    """The field of the meta key."""

    def __init__(self) -> None:
        self.version: bytes | None = None
        """The word when it was read last."""

    async def read(self) -> None:
        """Read it again; raise `StorageUnavailable`."""
        raise NotImplementedError


async def refresh(connections: Connections, keyspace: Keyspace, copies: Sequence[Copy]) -> None:
    """Read the copies again whose word has changed; raise `StorageUnavailable`."""
    with storage_errors():
        words = await connections.commands.hmget(meta_key(keyspace.prefix), [copy.WORD for copy in copies])
    for copy, word in zip(copies, words, strict=True):
        if word != copy.version and word is not None:
            await copy.read()
        copy.version = word


async def changed(connections: Connections, keyspace: Keyspace, word: str) -> None:
    """Let replicas read it again. Call it after the change, so that a replica that sees the word sees the change."""
    await connections.scripts.run(Call(SET_FIELDS, (meta_key(keyspace.prefix),), (word, secrets.token_hex(8))))
