"""What a service manager such as systemd is told, over the socket that it names."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from progress_server.server.notify import ServiceManager
from tests.cli.conftest import Shell, children, ready
from tests.servers import START_S, free_port

ALIVE = "WATCHDOG=1"


class Manager:
    """The manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.settimeout(START_S)

    def hears(self) -> str:
        return self._socket.recv(4096).decode()

    def hears_first(self, *, of: str) -> str:
        """Wait for a message with this line, before which there are none but that the server is alive."""
        while (told := self.hears()) == ALIVE:
            pass
        assert of in told.splitlines()
        return told

    def has_heard(self) -> list[str]:
        """Return what is there already."""
        self._socket.setblocking(False)
        told = []
        try:
            while True:
                told.append(self.hears())
        except BlockingIOError:
            return told
        finally:
            self._socket.settimeout(START_S)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(folder: Path) -> Iterator[Manager]:
    manager = Manager(str(folder / "notify"))
    yield manager
    manager.close()


def watched(shell: Shell, manager: Manager) -> Shell:
    shell.env |= {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "300000"}
    return shell


def test_a_server_tells_that_it_serves_lives_and_stops(lonely: Shell, manager: Manager) -> None:
    with watched(lonely, manager).process("serve", "--port", "0") as server:
        told = manager.hears_first(of="READY=1")
        port = told.rpartition(":")[2]
        with socket.create_connection(("127.0.0.1", int(port)), timeout=START_S):
            assert ready(server).endswith(f":{port}")
        assert [manager.hears() for _ in range(3)] == [ALIVE] * 3
        (redis,) = children(server.pid)
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{redis}/environ").read_bytes()
        assert server.stop(signal.SIGTERM) == 0
    manager.hears_first(of="STOPPING=1")
    assert set(manager.has_heard()) <= {ALIVE}


def test_a_server_without_its_redis_has_started_and_lives(shell: Shell, manager: Manager) -> None:
    shell.env["PROGRESS_REDIS_URL"] = f"redis://127.0.0.1:{free_port()}"
    with watched(shell, manager).process("serve", "--port", "0") as server:
        manager.hears_first(of="READY=1")
        assert [manager.hears() for _ in range(3)] == [ALIVE] * 3
        assert server.stop(signal.SIGTERM) == 0


def test_a_supervisor_speaks_for_its_processes(shell: Shell, manager: Manager) -> None:
    with watched(shell, manager).process("serve", "--port", "0", "--processes", "2") as server:
        assert "2 processes" in manager.hears_first(of="READY=1")
        assert manager.hears() == ALIVE
        assert server.stop(signal.SIGTERM) == 0
    manager.hears_first(of="STOPPING=1")
    assert set(manager.has_heard()) <= {ALIVE}


async def test_who_does_not_live_says_nothing(manager: Manager) -> None:
    asked = asyncio.Event()

    def dead() -> bool:
        asked.set()
        return False

    async with ServiceManager(manager.address, 0.01).watching(dead):
        await asked.wait()
    assert manager.has_heard() == []


def test_a_reload_is_told_whatever_comes_of_it(manager: Manager) -> None:
    with pytest.raises(ValueError, match="bad file"), ServiceManager(manager.address).reloading():
        raise ValueError("bad file")
    begun, over = manager.has_heard()
    assert begun.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert over == "READY=1"


def test_an_abstract_address_is_one(folder: Path) -> None:
    manager = Manager(f"@{folder}")
    ServiceManager(manager.address).ready("serving")
    assert manager.hears() == "READY=1\nSTATUS=serving"
    manager.close()


def test_the_environment_names_it_once_and_for_one_process() -> None:
    env = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7", "HOME": "/"}
    theirs, ours = dict(env), dict(env)
    assert ServiceManager.taken_from(theirs, 8).watchdog_s is None
    assert ServiceManager.taken_from(ours, 7).watchdog_s == 30
    assert ours == {"HOME": "/"}


def test_a_manager_that_is_gone_is_no_error(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    ServiceManager(str(folder / "gone")).ready()
    assert "can't be told READY=1" in caplog.text
    assert ServiceManager.taken_from({}, 7).ready() is None
