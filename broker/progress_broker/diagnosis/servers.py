"""Which servers an address leads to, each with a client that also talks to one that is of the wrong kind.

The broker's own connections refuse such a server, or one that is a replica, and so would hide what else is wrong.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from progress_broker.nodes.pool_settings import address_of, pool_settings
from progress_broker.nodes.run import exchange
from progress_broker.nodes.sentinels.connections import sentinel_connection
from progress_broker.routing.address import Endpoint, RedisAddress
from progress_broker.routing.discovery import ASK
from progress_broker.routing.known_nodes import KnownNodes
from progress_broker.routing.sentinels import find_master, question
from progress_broker.routing.server_errors import FAILURES
from progress_broker.runtime.steps import run_steps_async
from progress_broker.settings import Settings


class Server(NamedTuple):
    """A server to examine."""

    endpoint: Endpoint
    client: Any
    address: RedisAddress
    """Its own address, with the kind of Redis that the settings name."""

    @property
    def at(self) -> str:
        """Its name for people."""
        return str(self.endpoint)

    async def ask(self, *commands: Sequence[str | bytes]) -> list[Any]:
        """Send commands over a connection of their own; return the replies as Redis sent them, or its errors."""
        connection = self.client.connection_pool.make_connection()
        try:
            await connection.connect()
            return await exchange(connection, b"".join(connection.pack_commands(commands)), len(commands))
        finally:
            await connection.disconnect(nowait=True)


@asynccontextmanager
async def servers_of(settings: Settings) -> AsyncIterator[list[Server]]:
    """Give the server, or the master that sentinels name, or the masters of a Cluster, until the block ends.

    Raises errors of Redis and of the network if no sentinel names a master. If no node tells who is in the Cluster,
    these are the nodes of the address.
    """
    address = address_of(settings)
    clients: dict[Endpoint, aioredis.Redis] = {}

    def server(endpoint: Endpoint) -> Server:
        own = address.at(endpoint)
        if endpoint not in clients:
            options = pool_settings(settings, Retry(NoBackoff(), 0))
            clients[endpoint] = aioredis.Redis.from_url(address.url_of(endpoint), **options)
        return Server(endpoint, clients[endpoint], own)

    async def slots(endpoint: Endpoint) -> Any:
        (reply,) = await server(endpoint).ask(ASK)
        if isinstance(reply, Exception):
            raise reply
        return reply

    try:
        endpoints: Sequence[Endpoint] = address.seeds
        if address.kind == "sentinel":
            steps = find_master(address, address.seeds)
            endpoints = [(await run_steps_async(steps, lambda one: ask_sentinel(address, one), FAILURES))[0]]
        elif address.kind == "cluster":
            known = KnownNodes(address)
            if await run_steps_async(known.discovery(), slots, FAILURES) is None:
                endpoints = known.slots.masters
        yield [server(endpoint) for endpoint in endpoints]
    finally:
        await asyncio.gather(*(client.aclose() for client in clients.values()))


async def ask_sentinel(address: RedisAddress, sentinel: Endpoint) -> Any:
    """Return where a sentinel says that the master is."""
    connection = sentinel_connection(address, sentinel, asynchronous=True)
    try:
        await connection.connect()
        await connection.send_command(*question(address.service))
        return await connection.read_response()
    finally:
        await connection.disconnect(nowait=True)
