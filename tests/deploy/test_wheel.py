"""The wheel does in a project that has modules `api`, `broker`, `cli`, `web` and `workers` of its own."""

import json
import re
import sysconfig
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.distributions import OURS, link, needed
from tests.deploy.installation import Installation
from tests.servers import DEADLINE_S, START_S, RealRedis, free_port, wait_until


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installation:
    """One with all extras."""
    return Installation(tmp_path_factory.mktemp("whole"), wheel, Path(sysconfig.get_path("purelib")))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Installation:
    """One without extras: only what is installed with us is there."""
    folder = tmp_path_factory.mktemp("plain")
    link(needed() - {OURS}, folder / "dependencies")
    return Installation(folder, wheel, folder / "dependencies")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RealRedis]:
    with RealRedis(tmp_path / "redis", port=free_port()) as server:
        yield server


def shown(installed: Installation, redis: RealRedis, operation: str) -> tuple[str, int]:
    done = installed.run("progress-broker", "show", operation, "--json", PROGRESS_REDIS_URL=redis.url)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["status"], found["progress"]["current"]


def test_it_is_the_wheel_that_is_used_and_not_the_checkout(installed: Installation) -> None:
    done = installed.run("python", "-c", "import progress_workers, progress_server.app as a; print(a.__file__)")
    assert Path(done.stdout.strip()).is_relative_to(installed.site), done.stderr
    assert installed.run("python", "-c", "import api").stderr.endswith("the own api/__init__.py was imported\n")


def test_a_worker_reports(installed: Installation, redis: RealRedis) -> None:
    done = installed.run("python", "report.py", PROGRESS_REDIS_URL=redis.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown(installed, redis, "counted") == ("succeeded", 3)


def test_a_celery_task_is_an_operation(installed: Installation, redis: RealRedis, tmp_path: Path) -> None:
    where = {"QUEUE_URL": redis.url, "PROGRESS_REDIS_URL": redis.url}
    worker = installed.process(
        tmp_path / "celery.log", "python", "-m", "celery", "-A", "workers", "worker", "--pool", "solo", **where
    )
    with worker:
        code = "import workers; print(workers.count.apply_async([4], task_id='a-task').get(timeout=90))"
        done = installed.run("python", "-c", code, **where)
        assert done.stdout == "4\n", f"{done.stderr}\n{worker.output()}"
    assert shown(installed, redis, "a-task") == ("succeeded", 4)


def test_the_server_serves_the_api_and_the_page(installed: Installation, redis: RealRedis, tmp_path: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    where = {"PROGRESS_REDIS_URL": redis.url, "PROGRESS_PORT": str(port)}
    with installed.process(tmp_path / "serve.log", "progress-broker", "serve", **where) as server:

        def ready() -> bool:
            assert server.popen is not None
            assert server.popen.poll() is None, server.output()
            try:
                return bool(get(f"{address}readyz")[0] == 200)
            except OSError:
                return False

        wait_until(ready, "it is ready", START_S)
        status, page = get(address)
        assert status == 200
        scripts = re.findall(r'<script[^>]* src="([^"]+)"', page)
        assert scripts
        for script in scripts:
            status, text = get(address + script)
            assert status == 200
            assert "import" in text


def get(url: str) -> tuple[int, str]:
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:
        return answer.status, answer.read().decode()


def test_without_extras_a_worker_reports(plain: Installation, installed: Installation, redis: RealRedis) -> None:
    assert plain.run("python", "-c", "import fastapi").returncode == 1
    done = plain.run("python", "report.py", PROGRESS_REDIS_URL=redis.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown(installed, redis, "counted") == ("succeeded", 3)


def test_without_extras_the_command_line_says_what_to_type(plain: Installation) -> None:
    done = plain.run("progress-broker", "--help")
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == (
        "progress-broker: the command line needs more packages: pip install 'progress-broker[cli]'\n"
    )
