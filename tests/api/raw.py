"""A client on a raw socket, to send what no HTTP library would send, and to see what a library would hide."""

import asyncio
import socket
import ssl
import struct
from typing import Any, Self
from urllib.parse import urlsplit

STREAM = "/v1/operations/a/stream"
DEADLINE_S = 60


def request(path: str = STREAM, *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: localhost", *lines, "", ""]).encode()


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, url: str, *, receive_buffer: int | None = None) -> Self:
        """Connect. With `receive_buffer` the kernel buffers about that many unread bytes."""
        address = urlsplit(url)
        assert address.hostname is not None
        ours = socket.socket()
        if receive_buffer:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(ours, (address.hostname, address.port))
        tls: dict[str, Any] = {}
        if address.scheme == "https":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            tls = {"ssl": context, "server_hostname": "x"}
        return cls(*await asyncio.open_connection(sock=ours, limit=4096, **tls))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(DEADLINE_S):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        pairs = [line.partition(": ") for line in lines]
        headers = {name.lower(): value for name, _, value in pairs}
        assert len(headers) == len(pairs), f"a header comes twice: {lines}"
        return int(first.split(" ")[1]), headers

    async def answer(self) -> tuple[int, bytes]:
        """Return the status and the body of a response with Content-Length."""
        status, headers = await self.head()
        async with asyncio.timeout(DEADLINE_S):
            return status, await self.reader.readexactly(int(headers.get("content-length", 0)))

    async def chunk(self) -> bytes:
        """Return the next chunk; the last one is empty."""
        async with asyncio.timeout(DEADLINE_S):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def chunk_with(self, text: bytes) -> bytes:
        """Skip chunks until one has this text."""
        while text not in (chunk := await self.chunk()):
            assert chunk, f"the body ended without {text!r}"
        return chunk

    async def opened(self) -> dict[str, str]:
        """Read a new stream up to its snapshot; return the headers."""
        status, headers = await self.head()
        assert status == 200
        await self.chunk_with(b"event: snapshot")
        return headers

    async def body(self) -> bytes:
        """Return all chunks up to the last one."""
        data = bytearray()
        while chunk := await self.chunk():
            data += chunk
        return bytes(data)

    async def rest(self) -> bytes:
        """Return all data until the server closes or aborts the connection."""
        data = bytearray()
        async with asyncio.timeout(DEADLINE_S):
            try:
                while some := await self.reader.read(1 << 16):
                    data += some
            except ConnectionError:
                pass
        return bytes(data)

    def close(self) -> None:
        self.writer.close()

    def half_close(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        """Abort the connection, which the other side sees as an error."""
        ours = self.writer.get_extra_info("socket")
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
