"""The servers of `deploy/compose.*.yaml`, run as they are written, survive a master.

Each service is a process with a loopback address of its own, which stands for the address that the file gives it.
"""

import os
import random
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy import files
from tests.deploy.stack import Container
from tests.servers import DEADLINE_S, START_S, ApiReplica, need, wait_until


class Servers:
    """The services of one kind that run Redis' programs, in the order of their `depends_on`."""

    def __init__(self, folder: Path, kind: str) -> None:
        need("redis-cli", "redis-tools")
        services = files.compose(kind)["services"]
        self.own = {name: it for name, it in services.items() if it["image"].startswith("redis:")}
        self._net = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}."
        addresses = {name: it["networks"]["back"]["ipv4_address"] for name, it in self.own.items() if self._fixed(it)}
        self.address = {name: address.replace("172.30.84.", self._net) for name, address in addresses.items()}
        self.url = self._mapped(services["api"]["environment"]["PROGRESS_REDIS_URL"])
        self.containers = {name: self._container(folder / name, name) for name in self.own}

    @staticmethod
    def _fixed(service: dict[str, Any]) -> bool:
        return isinstance(service["networks"], dict)

    def _mapped(self, text: str) -> str:
        text = text.replace("172.30.84.", self._net).replace("$$", "$")
        names = "|".join(sorted(self.address, key=len, reverse=True))
        return re.sub(rf"(?<=[/,])({names})(?=[/,]|$)", lambda name: self.address[name[0]], text)

    def _container(self, folder: Path, name: str) -> Container:
        command = [self._mapped(word).replace("infinity", "600") for word in self.own[name]["command"]]
        if name in self.address:  # where it listens and connects from, and what the image adds
            own = f"--bind {self.address[name]} --bind-source-addr {self.address[name]} --protected-mode no"
            if command[0] == "redis-server":
                command += own.split()
            else:
                command[-1] = re.sub(r"(exec redis-server \S+)", rf"\1 {own}", command[-1])
        given = {key: self._mapped(value) for key, value in files.environment(self.own[name]).items()}
        return Container(folder, command, {"PATH": os.environ["PATH"]} | given)

    def health(self, name: str) -> subprocess.CompletedProcess[str]:
        command = [self._mapped(word) for word in files.health(self.own[name]) or ()]
        if command[0] == "redis-cli":
            command[1:1] = ["-h", self.address[name]]
        return self.containers[name].run(command)

    def __enter__(self) -> "Servers":
        with ExitStack() as stack:
            waiting = list(self.own)
            while waiting:
                ready = [it for it in waiting if not set(waiting) & set(self.own[it].get("depends_on", ()))]
                for name in ready:
                    stack.enter_context(self.containers[name])
                for name in ready:
                    wait_until(lambda name=name: self._is_healthy(name), f"{name} is healthy", START_S)  # type: ignore[misc]
                waiting = [name for name in waiting if name not in ready]
            self._stack = stack.pop_all()
        return self

    def _is_healthy(self, name: str) -> bool:
        container = self.containers[name]
        assert container.popen is not None
        assert container.popen.poll() is None, f"{name} ended: {container.output()[-2000:]}"
        return self.health(name).returncode == 0

    def __exit__(self, *_: object) -> None:
        self._stack.close()


@pytest.fixture(params=list(files.KINDS))
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Servers]:
    with Servers(tmp_path, request.param) as servers:
        yield servers


def test_operations_go_on_when_a_master_ends(servers: Servers, folder: Path) -> None:
    with (
        ApiReplica(servers.url, folder / "api.log", redis_timeout_s=5) as replica,
        httpx.Client(base_url=f"{replica.url}/v1", timeout=DEADLINE_S) as client,
    ):
        ids = [f"import-{number}" for number in range(20)]  # in all lanes, so at each master

        def post(path: str, body: dict[str, Any], *expected: int) -> None:
            wait_until(lambda: client.post(path, json=body).status_code in expected, f"{path} is done")

        for id in ids:
            post("/operations", {"id": id}, 200, 201)
        wait_until(lambda: knows_all(servers), "each sentinel knows who can take over")  # it asks every 10 s
        servers.containers["redis"].stop()
        ended = {"type": "end", "data": {"status": "succeeded"}}
        for id in ids:
            post(f"/operations/{id}/events", ended, 200, 409)  # it may have ended with a call that got no answer
        assert {client.get(f"/operations/{id}").json()["status"] for id in ids} == {"succeeded"}
        wait_until(lambda: servers.health("redis").returncode != 0, "its health check tells so")
        servers.containers["redis"].start()
        wait_until(lambda: "role:slave" in replication(servers), "it comes back as a replica")


def knows_all(servers: Servers) -> bool:
    sentinels = [name for name in servers.own if name.startswith("sentinel")]
    commands = [["redis-cli", "-h", servers.address[name], "-p", "26379", "info", "sentinel"] for name in sentinels]
    told = [servers.containers[name].run(it).stdout for name, it in zip(sentinels, commands, strict=True)]
    return all(f"slaves=2,sentinels={len(sentinels)}" in text for text in told)


def replication(servers: Servers) -> str:
    command = ["redis-cli", "-h", servers.address["redis"], "info", "replication"]
    return servers.containers["redis"].run(command).stdout
