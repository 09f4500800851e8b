"""Servers on releases that lack an undocumented name we need: they say so once, and serve all the same."""

import asyncio
import json
import signal
import sys
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.test_operations import create, finish, publish
from tests.api.transports.transports import TRANSPORTS, Told, whole
from tests.cli.test_service_manager import Manager
from tests.servers import ApiReplica, Process

HTTPTOOLS = "uvicorn.protocols.http.httptools_impl"
SANSIO = "uvicorn.protocols.websockets.websockets_sansio_impl"
ALTERED: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "nothing": ({}, {}),
    "a renamed attribute of a response": (
        {"renamed": {"uvicorn": {"message_event": "changed"}}},
        {f"RequestResponseCycle.message_event (in {HTTPTOOLS})": "slower ASGI outlet"},
    ),
    "a hidden module": ({"hidden": [HTTPTOOLS]}, {f"module {HTTPTOOLS}": "slower ASGI outlet"}),
    "a deleted method": (
        {"deleted": [f"{HTTPTOOLS}:HttpToolsProtocol._unset_keepalive_if_required"]},
        {f"HttpToolsProtocol._unset_keepalive_if_required (in {HTTPTOOLS})": "slower ASGI outlet"},
    ),
    "a hidden module of WebSockets": (
        {"hidden": [SANSIO]},
        {f"module {SANSIO}": "WebSockets are served by uvicorn's own"},
    ),
    "all at once": (
        {
            "renamed": {
                "uvicorn": {
                    "RequestResponseCycle": "Cycle",
                    "handle_cont": "on_continuation",
                    "handle_exit": "on_signal",
                },
                "sse_starlette": {"_listen_for_exit_signal": "_await_exit", "handle_exit": "on_signal"},
            }
        },
        {
            f"RequestResponseCycle (in {HTTPTOOLS})": "slower ASGI outlet",
            f"WebSocketsSansIOProtocol.handle_cont (in {SANSIO})": "WebSockets are served by uvicorn's own",
            "Server.handle_exit (in uvicorn.server)": "a second SIGTERM does not end it",
            "EventSourceResponse._listen_for_exit_signal (in sse_starlette.sse)": "twice a second",
        },
    ),
    "a method that sse-starlette looks for": (
        {"renamed": {"uvicorn": {"handle_exit": "on_signal"}}},
        {"Server.handle_exit (in uvicorn.server)": "a second SIGTERM does not end it"},
    ),
}


class AlteredReplica(ApiReplica):
    """A replica in an interpreter of its own, which lacks some names."""

    start = Process.start


@pytest.mark.parametrize("case", ALTERED)
async def test_streams_are_served_and_resumed_and_told_to_come_back(redis_url: str, tmp_path: Path, case: str) -> None:
    how, said = ALTERED[case]
    replica = AlteredReplica(redis_url, tmp_path / "log", drain_s=0.5)
    replica.command = [sys.executable, "-m", "tests.api.altered", json.dumps(how), "serve"]
    assert replica.env is not None
    manager = Manager(str(tmp_path / "notify"))
    replica.env["NOTIFY_SOCKET"] = manager.address
    with closing(manager), replica:
        async with httpx.AsyncClient(base_url=replica.url, timeout=30) as http:
            await create(http, id="a")
            await publish(http, "a", "log", {"message": "one"})
            sse, websocket = (TRANSPORTS[name](replica.url) for name in ("sse", "websocket"))
            async with aclosing(sse.listen("a")) as streamed, aclosing(websocket.listen("a")) as messages:
                first, _ = await anext(streamed), await anext(messages)
                served_by = (await http.get("/metrics")).text
                adopted = not any("ASGI" in what for what in said.values())
                outlet = "adopted" if adopted else "asgi"
                assert f'streams{{outlet="{outlet}",state="live"}} 1' in served_by
                await publish(http, "a", "log", {"message": "two"})
                for told in (streamed, messages):
                    assert (await anext(told)).data["data"] == {"message": "two"}
            for transport in (sse, websocket):
                async with aclosing(transport.listen("a", first.id)) as resumed:
                    assert (await anext(resumed)).data["data"] == {"message": "two"}
            await create(http, id="b")
            await finish(http, "b")
            assert [told.event for told in await whole(websocket, "b")] == ["snapshot", "end", "over"]
            waiting = [TRANSPORTS[name](replica.url).listen("a", first.id) for name in ("sse", "websocket")]
            for listening in waiting:
                await anext(listening)
            replica.send(signal.SIGTERM)
            for listening in waiting:
                assert await anext(listening) == Told("away", reason="draining")
        assert await asyncio.to_thread(replica.stop) == 0
        assert [told.partition("\n")[0] for told in manager.has_heard()] == ["READY=1", "STOPPING=1"]
    lines = [line for line in replica.output().splitlines() if " has no " in line]
    assert len(lines) == len(said)
    for (name, meaning), line in zip(said.items(), lines, strict=True):
        assert f" has no {name}, which this server needs to " in line
        assert " WARNING: " in line
        assert meaning in line
        assert "pip install 'progress-broker[server]'" in line
    assert "Traceback" not in replica.output()
