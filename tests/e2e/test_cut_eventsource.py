"""The npm package `eventsource` on a stream of many, disconnected during the snapshots: it receives each end."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import pytest

from tests.e2e.harness import Api
from tests.e2e.test_eventsource import Script
from tests.servers import wait_until

LANES = 16


class Cutter:
    """A proxy that aborts the first connection after a number of blocks, and holds all others until `back`."""

    def __init__(self, port: int, blocks: int) -> None:
        self._port, self._blocks = port, blocks
        self.back = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]

    def serve(self) -> None:
        with self.listener.accept()[0] as client:
            self._carry(client, self._blocks)
        with self.listener.accept()[0] as client:
            self.back.wait(20)
            self._carry(client, 1 << 30)

    def _carry(self, client: socket.socket, blocks: int) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as server:
            server.sendall(client.recv(65_536).replace(b"gzip", b"none"))  # because the proxy looks for blocks
            while blocks > 0 and (some := server.recv(65_536)):
                upto = -2
                while blocks > 0 and (found := some.find(b"\n\n", upto + 2)) >= 0:
                    upto, blocks = found, blocks - 1
                try:
                    client.sendall(some if blocks else some[: upto + 2])
                except OSError:
                    return


@contextmanager
def cutting(port: int, blocks: int) -> Iterator[Cutter]:
    cutter = Cutter(port, blocks)
    thread = threading.Thread(target=cutter.serve, daemon=True)
    thread.start()
    yield cutter
    cutter.listener.close()


def in_one_lane(prefix: str) -> list[str]:
    names = [f"{prefix}-{i}" for i in range(200)]
    return [name for name in names if crc32(name.encode()) % LANES == 0][:3]


@pytest.mark.parametrize("snapshots", range(4))
def test_it_hears_of_each_end(api: Api, tmp_path: Path, snapshots: int) -> None:
    owner = f"cut-{snapshots}"
    names = in_one_lane(owner)
    for name in names:
        api.create(id=name, owner=owner)
    opening = 1  # its first lines, with `operations`
    with (
        cutting(int(api.url.rpartition(":")[2]), opening + snapshots) as cutter,
        Script(
            tmp_path / "out", "follow_stream.mjs", f"http://127.0.0.1:{cutter.port}/v1/stream?owner={owner}"
        ) as client,
    ):
        wait_until(lambda: {"lost": True} in client.lines(), "it is cut off")
        told = [line for line in client.lines() if "event" in line]
        assert [line["event"] for line in told] == ["operations", *["snapshot"] * snapshots]
        for name in names[:2]:
            api.finish(name)
        cutter.back.set()

        def after() -> list[tuple[str, str]]:
            lines = [line for line in client.lines() if "event" in line][len(told) :]
            return [(line["event"], line["envelope"].get("operation")) for line in lines]

        ends = [("end", name) for name in names[:2]]
        wait_until(lambda: set(ends) <= set(after()), "it hears of the ends")
    second = after()
    assert [it for it in second if it[0] == "end"] == ends, "once, and in order"
    anew = {name for event, name in second if event == "snapshot"}
    assert anew == (set() if snapshots == len(names) else {*names}), "the lane that was not all told, whole"
