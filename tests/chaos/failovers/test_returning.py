"""Row 16: many clients return while a lane is away. Those of other lanes are admitted."""

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path

from tests.chaos.failovers.drive import Drive, driving
from tests.topologies.cluster import Cluster
from tests.topologies.topology import LANES

CLIENTS = int(os.environ.get("PROGRESS_RETURNING", "500"))
ADMITTED_S = 5.0


class Returning:
    """A client that opens a stream again whenever it has none."""

    def __init__(self, port: int, operation: str) -> None:
        self._port, self._operation = port, operation
        self.admitted_at = float("inf")
        self._writer: asyncio.StreamWriter | None = None

    def cut(self) -> None:
        self.admitted_at = float("inf")
        if self._writer is not None:
            self._writer.transport.abort()

    async def run(self) -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._follow()
            await asyncio.sleep(0.2)

    async def _follow(self) -> None:
        reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = (
            f"GET /v1/operations/{self._operation}/stream?types=end HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"
        )
        self._writer.write(head.encode())
        try:
            answer = await reader.readuntil(b"\r\n\r\n")
            if answer.split()[1] != b"200":
                return
            self.admitted_at = time.monotonic()
            while await reader.read(65_536):
                pass
        finally:
            self.admitted_at = float("inf")
            self._writer.close()


async def return_at_once(drive: Drive, cluster: Cluster) -> tuple[float, float]:
    """Cut all clients while a master and its replica hang. Return how long others took, and those after it was back."""
    node = cluster.of_lane(0)
    gone = [node, *cluster.replicas_of(node)]
    hit = [lane for lane in range(LANES) if cluster.of_lane(lane) is node]
    clients = {number: Returning(drive.api.port, drive.names[number % LANES]) for number in range(CLIENTS)}
    others = [client for number, client in clients.items() if number % LANES not in hit]
    tasks = [asyncio.create_task(client.run()) for client in clients.values()]
    try:
        await admitted(list(clients.values()), 0)
        for each in gone:
            cluster.stop(each)
        await asyncio.sleep(3)
        since = time.monotonic()
        for client in clients.values():
            client.cut()
        first = await admitted(others, since) - since
        for each in gone:
            cluster.cont(each)
        back = time.monotonic()
        return first, await admitted(list(clients.values()), 0) - back
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def admitted(clients: list[Returning], since: float) -> float:
    """Return when the last of some clients was admitted."""
    async with asyncio.timeout(60):
        while not all(since < client.admitted_at < float("inf") for client in clients):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return max(client.admitted_at for client in clients)


def test_clients_of_other_lanes_are_admitted(cluster: Cluster, folder: Path) -> None:
    with driving(cluster.url, folder, sdk_url=cluster.url) as drive:
        since = time.monotonic()
        others_s, all_s = asyncio.run(return_at_once(drive, cluster))
        drive.figures["clients"] = CLIENTS
        drive.figures["others admitted after"] = f"{others_s:.2f} s"
        drive.figures["all admitted, once it was back, after"] = f"{all_s:.2f} s"
        drive.await_publishing(time.monotonic())
        drive.gaps(since, range(LANES))
        drive.finish("cluster, clients return while lanes are away", since)
        assert others_s <= ADMITTED_S + drive.slack
