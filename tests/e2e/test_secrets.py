"""A secret in any part of a rejected request is neither logged nor sent back."""

import socket
from pathlib import Path

import httpx
import pytest

from tests.e2e.harness import OPS
from tests.servers import ApiReplica, RealRedis

SECRET = "s3cret-eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
HEADERS = ("Authorization", "Cookie", "X-Api-Key", "Proxy-Authorization", "Sec-WebSocket-Protocol")
VALUES = {"Authorization": f"Bearer {SECRET}", "Cookie": f"progress_token={SECRET}; session={SECRET}"}
PARAMETERS = ("ticket", "token", "access_token", "Ticket", "%74icket")
PATHS = (
    "/",
    "/livez",
    "/docs",
    OPS,
    f"{OPS}/a",
    f"{OPS}/a/events",
    f"{OPS}/a/stream",
    "/v1/stream",
    "/v1/ws",
    "/v1/nothing",
)
EVENTS = {"Accept": "text/event-stream"}


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_secret_is_in_a_log_or_an_answer(tmp_path: Path, form: str) -> None:
    told: list[str] = []
    chatty = {"log_level": "debug", "log_format": form, "drain_s": 0.5, "stream_max_age_s": 0.2}
    with RealRedis(tmp_path / "redis") as redis, ApiReplica(redis.url, tmp_path / "log", **chatty) as replica:
        with httpx.Client(base_url=replica.await_ready().url, timeout=60, follow_redirects=False) as http:
            http.post(OPS, json={"id": "a"})
            for path in PATHS:
                for method in ("GET", "POST", "DELETE", "OPTIONS"):
                    asked = [({name: VALUES.get(name, SECRET)}, "") for name in HEADERS]
                    asked += [({}, f"?from=start&{name}={SECRET}&types=end") for name in PARAMETERS]
                    for headers, query in asked:
                        answer = http.request(method, f"{path}{query}", headers=EVENTS | headers)
                        told += [answer.text, str(answer.headers)]
            for body in (f'{{"token": "{SECRET}"}}', f'{{"ticket": "{SECRET}"', SECRET):
                for path in (
                    OPS,
                    f"{OPS}/a/events",
                    f"{OPS}/a/cancel",
                    f"{OPS}/a/signals",
                    f"{OPS}/a/tickets",
                    "/v1/tickets",
                ):
                    answer = http.post(path, content=body, headers={"Content-Type": "application/json"})
                    told += [answer.text, str(answer.headers)]
        for raw in (f"GET /livez?ticket={SECRET} NONSENSE\r\n\r\n", f"Authorization: Bearer {SECRET}\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", replica.port), timeout=60) as one:
                one.sendall(raw.encode())
                told.append(one.recv(4096).decode("latin-1"))
        assert replica.stop() == 0
        log = replica.output()
    assert f"{OPS}/a/stream" in log, "requests are logged"
    assert "s3cret" not in log, [line for line in log.splitlines() if "s3cret" in line][:5]
    assert not [text for text in told if "s3cret" in text][:3]
