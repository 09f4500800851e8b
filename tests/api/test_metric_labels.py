"""Requests can't add label values to `/metrics`: each label has few values, all defined by us."""

import random
from contextlib import suppress

import httpx
from prometheus_client.parser import text_string_to_metric_families as read_text
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from progress_broker.model.operation import Status
from progress_server.http.problems import STATUS_OF_CODE
from tests.api.hostile import WEBSOCKET
from tests.api.raw import Client, request
from tests.api.test_operations import OPS, create

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "PURGE", "MKCOL", "LINK")
OTHERS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}
MARK = "h0stile"

Series = frozenset[tuple[str, frozenset[tuple[str, str]]]]


async def series(http: httpx.AsyncClient) -> Series:
    """Return the names and labels of all samples."""
    text = (await http.get("/metrics")).text
    assert MARK not in text
    samples = [sample for family in read_text(text) for sample in family.samples]
    return frozenset((sample.name, frozenset(sample.labels.items())) for sample in samples)


def paths(chance: random.Random) -> list[str]:
    word = f"{MARK}{chance.randrange(10**9)}"
    under = [
        f"{OPS}/{word}{rest}" for rest in ("", "/events", "/stream", "/cancel", "/signals", "/tickets", f"/{word}")
    ]
    others = [f"/{word}", f"/web/client/{word}", f"/v1/{word}", f"//{word}", f"/%2e%2e/{word}", "/v1/stream", "/v1/ws"]
    return [f"{path}?{word}={word}&types={word}" for path in (*under, *others, f"/livez/{word}", "/metrics", "/readyz")]


async def assail(http: httpx.AsyncClient, base_url: str, seed: int) -> None:
    """Send many kinds of requests, each with words that were never used before."""
    chance = random.Random(seed)
    for method in METHODS:
        for path in paths(chance):
            word = f"{MARK}{chance.randrange(10**9)}"
            body = f'{{"type": "{word}", "status": "{word}"}}'
            headers = {"X-Request-Id": word, "Last-Event-ID": word, "Origin": f"https://{word}.test", word: word}
            await http.request(method, path, content=body, headers=headers)
    for path in paths(chance):
        with suppress(WebSocketException, OSError):
            async with connect(base_url.replace("http", "ws") + path) as socket:
                await socket.send(f'{{"type": "{MARK}{chance.randrange(10**9)}"}}')
                while "problem" not in str(await socket.recv()):
                    pass
    for line in (f"{MARK} / HTTP/1.1\r\n\r\n".encode(), request(f"/{MARK}", *WEBSOCKET, "Upgrade: x")):
        client = await Client.connect(base_url)
        client.send(line)
        client.half_close()
        await client.rest()
        client.close()


async def test_hostile_words_make_no_series(http: httpx.AsyncClient, base_url: str) -> None:
    await create(http, id="a")
    await assail(http, base_url, 1)
    told = await series(http)
    await assail(http, base_url, 2)
    assert await series(http) == told
    labels = {(name, value) for _, pairs in told for name, value in pairs}
    assert {value for name, value in labels if name == "method"} == OTHERS
    assert {value for name, value in labels if name == "status"} <= {"1xx", "2xx", "3xx", "4xx", "5xx", *Status}
    rejected = {dict(pairs)["reason"] for name, pairs in told if name.endswith("rejected_total")}
    assert rejected <= set(STATUS_OF_CODE)
    routes = {value for name, value in labels if name == "route"}
    assert "other" in routes
    assert len(routes) < 40
