"""A TCP balancer in the event loop of a test: each connection goes to a server that answers, and can be cut."""

import asyncio
import random
from collections.abc import Sequence
from typing import Self


class Balancer:
    """Passes bytes on between clients and one of some ports. A connection ends with that of its server."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.connections = 0

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Cut one connection, without a word to either side."""
        if self._open:
            random.choice(list(self._open)).transport.abort()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        for port in random.sample(self._ports, len(self._ports)):
            try:
                server = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            self._open |= {writer, server[1]}
            both = asyncio.gather(_copy(reader, server[1]), _copy(server[0], writer))
            try:
                await both
            finally:
                self._open -= {writer, server[1]}
                server[1].transport.abort()
            break
        writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
