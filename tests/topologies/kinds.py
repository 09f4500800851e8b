"""The kinds of Redis that whole suites run over. A process of tests starts each once, when a test asks for it."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.topologies.cluster import Cluster
from tests.topologies.sentinel import SentinelSet

ALL_BACKENDS = "PROGRESS_TEST_ALL_BACKENDS"
"""The variable with which suites run over all of them, and over the double: `make topologies`."""
KINDS: dict[str, Callable[[Path], Any]] = {
    "sentinel": SentinelSet,
    "cluster": Cluster,
    "valkey8": lambda folder: Cluster(folder, server="valkey8"),
    "valkey9": lambda folder: Cluster(folder, server="valkey9"),
}
"""Beside a single server: a Sentinel set, and Clusters of Debian's Redis, Valkey 8 and Valkey 9."""
RUN = ["redis", *KINDS] if ALL_BACKENDS in os.environ else ["redis"]
"""Those that this run has."""


class Topologies:
    """The servers of a process of tests. Tests that stop or move something start their own."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack = folder, ExitStack()
        self._started: dict[str, Any] = {}

    def started(self, kind: str) -> Any:
        if kind not in self._started:
            self._started[kind] = self._stack.enter_context(KINDS[kind](self._folder / kind))
        return self._started[kind]

    def emptied(self, kind: str) -> str:
        """Return the address of an empty one."""
        topology = self.started(kind)
        topology.flush()
        url: str = topology.url
        return url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
