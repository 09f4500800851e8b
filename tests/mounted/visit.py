"""What a user of an app does with the server mounted in it: follows, resumes, cancels."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
from websockets.asyncio.client import connect

from tests.sse import Message, read

ALICE = {"X-Token": "a"}
OPS = "/progress/v1/operations"


class Following:
    """An open stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._pieces = response.aiter_bytes()
        self._waiting: list[Message] = []
        self._rest = b""

    async def next(self) -> Message:
        """Return the next event that is not a bookmark."""
        while not self._waiting:
            self._rest += await anext(self._pieces)
            whole, end, self._rest = self._rest.rpartition(b"\n\n")
            self._waiting += [it for it in read(whole + end) if it.type != "bookmark"]
        return self._waiting.pop(0)

    async def until(self, type: str) -> Message:
        while (message := await self.next()).type != type:
            pass
        return message


@asynccontextmanager
async def following(
    http: httpx.AsyncClient, id: str, proof: dict[str, str] = ALICE, after: str = ""
) -> AsyncIterator[Following]:
    headers = proof | ({"Last-Event-ID": after} if after else {})
    async with asyncio.timeout(60), http.stream("GET", f"{OPS}/{id}/stream", headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        yield Following(response)


async def start(http: httpx.AsyncClient, id: str) -> None:
    (await http.post(f"/start/{id}")).raise_for_status()


async def say(http: httpx.AsyncClient, id: str, text: str) -> None:
    (await http.post(f"/say/{id}/{text}")).raise_for_status()


async def visit(http: httpx.AsyncClient, id: str, proof: dict[str, str] = ALICE) -> None:
    """Follow an operation, resume, follow it by WebSocket, and cancel it."""
    await start(http, id)
    assert (await http.get(f"{OPS}/{id}")).status_code == 401
    if proof == ALICE:
        assert (await http.get(f"{OPS}/{id}", headers={"X-Token": "b"})).status_code == 404
    async with following(http, id, proof) as stream:
        assert (await stream.next()).type == "snapshot"
        await say(http, id, "first")
        seen = await stream.next()
        assert seen.json["data"] == {"message": "first"}
    await say(http, id, "second")
    async with following(http, id, proof, after=seen.id) as stream:
        assert (await stream.next()).json["data"] == {"message": "second"}, "it goes on where it was cut"
        assert (await http.post(f"{OPS}/{id}/cancel", headers=proof)).status_code == 202
        assert (await stream.until("end")).json["data"]["status"] == "cancelled"
    url = f"{str(http.base_url).replace('http', 'ws', 1)}{OPS}/{id}/ws?from=start"
    async with asyncio.timeout(60), connect(url.replace("//progress", "/progress"), additional_headers=proof) as socket:
        told: list[dict[str, Any]] = [orjson.loads(message) async for message in socket]
    assert [it["event"] for it in told if it["event"] == "end"] == ["end"]


async def sign_in_to_django(http: httpx.AsyncClient) -> dict[str, str]:
    """Sign in as alice; return the header that proves it."""
    session = (await http.post("/sign-in")).raise_for_status().cookies["sessionid"]
    http.cookies.clear()
    return {"Cookie": f"sessionid={session}"}


async def is_open(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/progress/readyz")).status_code == 200
    except httpx.TransportError:
        return False
