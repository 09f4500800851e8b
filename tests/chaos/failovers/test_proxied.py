"""Row 14: the network to one node of a Cluster fails, and the Cluster itself does not notice. Addresses are mapped."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.failovers.drive import driving
from tests.servers import free_port
from tests.topologies.cluster import Cluster, ClusterNode
from tests.topologies.topology import LANES
from tests.workers.proxy import Proxy

FAILS_S, AFTER_S, OTHERS_S = 4.0, 2.0, 0.5


class Proxied:
    """A Cluster of masters, each behind a proxy."""

    def __init__(self, cluster: Cluster, stack: ExitStack) -> None:
        self.cluster = cluster
        self._proxies = {node.id: stack.enter_context(Proxy(node.port)) for node in cluster.nodes}

    @property
    def url(self) -> str:
        reached = {node.port: self.of(node).url.removeprefix("redis://") for node in self.cluster.nodes}
        mapped = ",".join(f"127.0.0.1:{port}>{at}" for port, at in reached.items())
        return f"redis+cluster://{','.join(reached.values())}?nat={mapped}"

    def of(self, node: ClusterNode) -> Proxy:
        return self._proxies[node.id]


@pytest.fixture
def proxied(folder: Path) -> Iterator[Proxied]:
    with ExitStack() as stack:
        yield Proxied(stack.enter_context(Cluster(folder / "cluster")), stack)


def cut(proxy: Proxy) -> None:
    for _ in range(8):
        proxy.cut()
        time.sleep(FAILS_S / 8)


def hole(proxy: Proxy) -> None:
    proxy.dropping = True
    time.sleep(FAILS_S)
    proxy.dropping = False
    proxy.cut()  # what was dropped is missing


def refuse(proxy: Proxy) -> None:
    target, proxy.target = proxy.target, free_port()
    proxy.cut()
    time.sleep(FAILS_S)
    proxy.target = target


@pytest.mark.parametrize("fault", [cut, hole, refuse])
def test_the_network_to_one_node_fails(proxied: Proxied, folder: Path, fault: Callable[[Proxy], None]) -> None:
    with driving(proxied.url, folder, sdk_url=proxied.url) as drive:
        node = proxied.cluster.of_lane(0)
        hit = [lane for lane in range(LANES) if proxied.cluster.of_lane(lane) is node]
        since = time.monotonic()
        fault(proxied.of(node))
        drive.await_publishing(time.monotonic())
        gap, others = drive.gaps(since, hit)
        outcome = drive.finish(f"cluster, {fault.__name__} before one node for {FAILS_S:g} s", since)
        assert gap <= FAILS_S + AFTER_S + drive.slack
        assert others <= OTHERS_S + drive.slack
        assert outcome.forgotten == 0
