"""A client for the chaos test: an EventSource in miniature, that keeps its position over any cut and counts by `n`."""

import asyncio
import random
import re
import ssl

import orjson


class Client:
    """Follows an operation on any of some ports until its end; `cut` ends its present connection."""

    def __init__(self, operation: str, ports: list[int], tls: ssl.SSLContext | None = None) -> None:
        self.operation, self.ports, self.tls = operation, ports, tls
        self.path = f"/v1/operations/{operation}/stream?from=start&wait_s=30"
        self.position: bytes | None = None
        self.numbers: list[int] = []
        self.faults: list[str] = []
        self.connections = 0
        self.ended = False
        self._writer: asyncio.StreamWriter | None = None

    def cut(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()

    async def run(self) -> None:
        while not self.ended:
            try:
                await self._follow(random.choice(self.ports))
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                pass
            finally:
                if self._writer is not None:
                    self._writer.close()
            await asyncio.sleep(random.uniform(0, 0.3))

    async def _follow(self, port: int) -> None:
        name = "localhost" if self.tls else None
        reader, self._writer = await asyncio.open_connection("127.0.0.1", port, ssl=self.tls, server_hostname=name)
        self.connections += 1
        where = b"Last-Event-ID: " + self.position + b"\r\n" if self.position else b""
        self._writer.write(
            b"GET "
            + self.path.encode()
            + b" HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
            + where
            + b"\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split()[1])
        if status == 204:
            self.ended = True
        elif status != 200:
            self.faults.append(f"{status} {head!r}")
            self.ended = True
        elif length := re.search(rb"\r\ncontent-length: (\d+)", head, re.IGNORECASE):  # sent away at once
            for block in (await reader.readexactly(int(length[1]))).split(b"\n\n"):
                self._event(block)
        else:
            await self._events(reader)

    async def _events(self, reader: asyncio.StreamReader) -> None:
        rest = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            rest += (await reader.readexactly(size + 2))[:-2]
            *blocks, rest = rest.split(b"\n\n")
            for block in blocks:
                self._event(block)
        if not all(line.startswith(b":") for line in rest.splitlines()):  # a ping has no end of its own
            self.faults.append(f"the stream ended within an event: {rest[:80]!r}")

    def _event(self, block: bytes) -> None:
        lines = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
        if b"data" not in lines:
            return
        event = orjson.loads(lines[b"data"])
        if b"id" not in lines:
            if lines.get(b"event") == b"snapshot":
                if self.numbers or "reset" in event or not event["data"]["done"]:
                    self.faults.append(f"an unasked snapshot: {block[:200]!r}")
                self.numbers += range(1, event["n"])  # it came and ended meanwhile; its end follows
            return
        self.position = lines[b"id"]
        if lines[b"event"] == b"bookmark":
            return
        if lines[b"event"] == b"snapshot":
            if self.numbers or "reset" in event:
                self.faults.append(f"history was said to be lost: {block[:200]!r}")
            self.numbers += range(1, event["n"] + 1)  # the operation did not exist yet when it came
        else:
            self.numbers.append(event["n"])
        self.ended = self.ended or lines[b"event"] == b"end"
