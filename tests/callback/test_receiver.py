"""Runs the receiver of docs/how-to/callback.md as a server of its own, with a replica as users run it."""

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from progress_server.callback.signature import Signer
from tests.api.test_operations import OPS
from tests.callback.backend import SECRET
from tests.servers import DEADLINE_S, START_S, ApiReplica, Process, free_port, wait_until

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "callback.md"
ALICE = {"Cookie": "session=a-session-of-alice"}
DISCONNECT = b'{"action": "disconnect"}'


def answers(url: str) -> bool:
    try:
        return httpx.post(url, timeout=DEADLINE_S).status_code == 400
    except httpx.TransportError:
        return False


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[str]:
    [code] = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "receiver.py").write_text(code)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--port", str(port), "--app-dir", str(tmp_path), "receiver:app"]
    with Process(command, tmp_path / "receiver.log", os.environ | {"PROGRESS_CALLBACK_SECRET": SECRET}) as receiver:
        url = f"http://127.0.0.1:{port}/progress-hook"
        wait_until(lambda: answers(url), "the receiver serves", START_S)
        yield url
        assert "Traceback" not in receiver.output()


def test_it_decides_who_may_open_a_stream(hook: str, redis_url: str, tmp_path: Path) -> None:
    settings = {"auth": "callback", "callback_url": hook, "callback_secret": SECRET}
    with (
        ApiReplica(redis_url, tmp_path / "log", **settings) as replica,
        httpx.Client(base_url=replica.url, timeout=DEADLINE_S) as http,
    ):
        assert http.get(OPS, headers=ALICE).json()["operations"] == []
        assert http.get(f"{OPS}/a/stream", headers=ALICE).status_code == 404
        for headers in ({}, {"Cookie": "session=guessed"}, {"Authorization": "Bearer guessed"}):
            assert http.get(OPS, headers=headers).status_code == 401
            assert http.get(f"{OPS}/a/stream", headers=headers).status_code == 401
        metrics = http.get("/metrics", headers=ALICE)
        assert metrics.status_code == 403, "alice may do no more than it says"


def test_it_rejects_what_the_broker_did_not_sign(hook: str) -> None:
    signer = Signer(SECRET)
    other = Signer("whsec_" + "x" * 32)
    good = signer.headers("msg_1", DISCONNECT)
    for headers, body, status in (
        (good, DISCONNECT, 200),
        ({}, DISCONNECT, 400),
        (good, DISCONNECT + b" ", 400),
        (other.headers("msg_1", DISCONNECT), DISCONNECT, 400),
        (signer.headers("msg_1", DISCONNECT, time.time() - 400), DISCONNECT, 400),
        (good | {"webhook-signature": "v1"}, DISCONNECT, 400),
        (good | {"webhook-signature": "v1,a"}, DISCONNECT, 400),
        (good, b"\xff", 400),
    ):
        assert httpx.post(hook, headers=headers, content=body, timeout=DEADLINE_S).status_code == status
