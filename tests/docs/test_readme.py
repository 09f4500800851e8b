"""What README and protocol.md tell people to type is typed here."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from progress_broker.storage.keys import Keyspace, lane_tags
from tests.servers import ApiReplica, RealRedis, need

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
ADDRESS = "http://127.0.0.1:8000"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiReplica]:
    folder = tmp_path_factory.mktemp("readme")
    with RealRedis(folder / "redis") as redis, ApiReplica(redis.url, folder / "api.log") as replica:
        yield replica


def run(command: list[str], replica: ApiReplica, text: str = "") -> str:
    assert replica.env is not None
    path = f"{Path(sys.executable).parent}{os.pathsep}{replica.env['PATH']}"
    done = subprocess.run(
        command, input=text, env=replica.env | {"PATH": path}, cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_worker_and_the_browser(replica: ApiReplica) -> None:
    [worker], [browser] = blocks(README, "python"), blocks(README, "js")
    run([sys.executable, "-"], replica, worker)
    script = f"import {{ EventSource }} from 'eventsource';\n{browser.replace(ADDRESS, replica.url)}"
    node = [need("node", "nodejs"), "--input-type=module", "-"]
    folder = ROOT / "tests"  # where the npm packages are
    done = subprocess.run(node, input=script, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ended: succeeded"
    assert "100" in done.stdout


def test_the_shell_and_the_operator(replica: ApiReplica) -> None:
    told = ""
    for block in blocks(README, "sh"):
        told += run(["bash", "-eu"], replica, block.replace(ADDRESS, replica.url))
    assert "event: end" in told
    assert "backup-7" in told


def test_the_settings_and_options_named_exist(replica: ApiReplica) -> None:
    from progress_broker.settings import Settings

    told = README + "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    named = {name.lower() for name in re.findall(r"PROGRESS_([A-Z_]+[A-Z])", told)}
    assert named <= set(Settings.model_fields)
    shown = run([sys.executable, "-m", "progress_cli", "--help"], replica)
    for command in re.findall(r"`progress-broker (\w+)", told):
        assert command in shown


def test_a_worker_in_another_language_publishes_with_redis_cli(replica: ApiReplica) -> None:
    assert replica.env is not None
    run(["bash", "-eu"], replica, f'curl -sf {replica.url}/v1/operations -d \'{{"id": "import-42"}}\' || true')
    tag = lane_tags("pb", 16)[Keyspace("pb", 16).lane_of("import-42")]
    socket = replica.env["PROGRESS_REDIS_URL"].removeprefix("unix://")
    [script] = [block for block in blocks(PROTOCOL, "sh") if "redis-cli" in block]
    run(["bash", "-eu"], replica, "curl -sf -X DELETE " + f"{replica.url}/v1/operations/import-42?force=true || true")
    run(["bash", "-eu"], replica, f'curl -sf {replica.url}/v1/operations -d \'{{"id": "import-43"}}\'')
    tag = lane_tags("pb", 16)[Keyspace("pb", 16).lane_of("import-43")]
    command = script.replace("redis-cli", f"redis-cli -s {shlex.quote(socket)}").replace("import-42", "import-43")
    assert run(["bash", "-eu"], replica, f"T={tag}\n{command}").split()[0] == "ok"
    assert "from a shell" in run(["curl", "-sf", f"{replica.url}/v1/operations/import-43/events"], replica)


def test_a_client_of_websockets(replica: ApiReplica) -> None:
    [client] = blocks(PROTOCOL, "python")
    script = f"""
        curl -sf {replica.url}/v1/operations -d '{{"id": "import-44"}}'
        curl -sf {replica.url}/v1/operations/import-44/events -d '{{"type": "end", "data": {{"status": "succeeded"}}}}'
    """
    run(["bash", "-eu"], replica, script)
    there = replica.url.replace("http", "ws", 1)
    client = client.replace("ws://127.0.0.1:8000", there).replace("import-42", "import-44")
    told = run([sys.executable, "-"], replica, client).splitlines()
    assert [line.split()[0] for line in told] == ["snapshot", "end"]


def test_the_links_lead_somewhere() -> None:
    docs = sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *docs):
        for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
            if not link.startswith("http"):
                assert ((ROOT / page).parent / link).exists(), f"{page}: {link}"


def test_every_page_can_be_found_from_the_readme() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in README


def test_the_files_of_the_reading_order_exist_and_are_short() -> None:
    order = re.findall(r"^\d+\. `([^`]+)`", (ROOT / "docs" / "design.md").read_text(), re.MULTILINE)
    assert len(order) == 10
    lines = [len((ROOT / path).read_text().splitlines()) for path in order]
    assert sum(lines) < 2_100, dict(zip(order, lines, strict=True))
