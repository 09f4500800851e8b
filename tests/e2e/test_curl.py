"""curl, as people use it to try the API."""

import json
from pathlib import Path

import pytest

from tests import sse
from tests.e2e.harness import Api, run
from tests.servers import DEADLINE_S, Process, need, wait_until


def curl(*arguments: str) -> tuple[int, dict[str, str], str]:
    """Return the status, the headers and the body of an answer."""
    done = run([need("curl", "curl"), "-N", "-sS", "-i", "--max-time", f"{DEADLINE_S:g}", *arguments], text=False)
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split(" ")[1]), headers, body


def numbers(body: str) -> list[int]:
    return [message.json["n"] for message in sse.read(body.encode())]


def test_live(api: Api, tmp_path: Path) -> None:
    operation = api.create()
    command = [need("curl", "curl"), "-N", "-sS", "--max-time", f"{DEADLINE_S:g}", api.stream(operation)]
    with Process(command, tmp_path / "out") as process:
        wait_until(lambda: "event: snapshot" in process.output(), "the snapshot comes")
        for n in range(5):
            api.log(operation, f"line {n}")
            wait_until(lambda n=n: f"line {n}" in process.output(), "each line comes at once")  # type: ignore[misc]
        wait_until(lambda: "\n: ping\n" in process.output(), "so does a ping")
        api.finish(operation)
        assert process.popen is not None
        assert process.popen.wait(DEADLINE_S) == 0
        assert process.output().startswith("retry: ")
        assert numbers(process.output()) == [1, 2, 3, 4, 5, 6, 7]


def test_everything_from_the_start_and_what_follows_a_position(api: Api) -> None:
    operation = api.create()
    api.log(operation, "a", "b", "c")
    api.finish(operation)
    status, headers, body = curl(f"{api.stream(operation)}?from=start")
    assert status == 200
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-store, no-transform"
    assert headers["x-accel-buffering"] == "no"
    messages = sse.read(body.encode())
    assert [message.json["n"] for message in messages] == [1, 2, 3, 4, 5]
    for message in messages[:-1]:
        n = message.json["n"]
        _, _, body = curl("-H", f"Last-Event-ID: {message.id}", f"{api.stream(operation)}?from=start")
        assert numbers(body) == list(range(n + 1, 6))
    status, _, body = curl("-H", f"Last-Event-ID: {messages[-1].id}", api.stream(operation))
    assert (status, body) == (204, "")


@pytest.mark.parametrize(
    ("path", "header", "status", "type"),
    [
        ("nowhere/stream", None, 404, "not-found"),
        ("nowhere/stream", "Last-Event-ID: 1-0", 404, "not-found"),
        ("nowhere/stream", "Last-Event-ID: garbage", 422, "invalid"),
        ("nowhere/stream?from=end", None, 422, "invalid"),
        ("nowhere/stream?last_event_id=1", None, 422, "invalid"),
        ("not%20an%20id/stream", None, 422, "invalid"),
        ("nowhere/streams", None, 404, "not-found"),
    ],
)
def test_rejections_are_problems(api: Api, path: str, header: str | None, status: int, type: str) -> None:
    got, headers, body = curl(*(["-H", header] if header else []), f"{api.url}/v1/operations/{path}")
    assert (got, headers["content-type"]) == (status, "application/problem+json")
    assert f'"type":"{type}"' in body


def test_a_deleted_operation_is_gone(api: Api) -> None:
    operation = api.create()
    api.finish(operation)
    assert curl("-X", "DELETE", f"{api.url}/v1/operations/{operation}")[0] == 204
    for query in ("", "?from=start", "?last_event_id=1-0"):
        assert curl(api.stream(operation) + query)[0] == 410


def test_head_gets_the_head_and_no_stream(api: Api) -> None:
    operation = api.create()
    status, headers, body = curl("-I", api.stream(operation))
    assert (status, headers["content-type"], body) == (200, "text/event-stream", "")
    assert curl("-I", f"{api.url}/v1/operations/nowhere/stream")[0] == 404


def test_an_offer_of_http_2_leaves_what_is_sent_whole(api: Api) -> None:
    sent = ("-d", '{"id": "offered", "kind": "import"}', "-H", "Content-Type: application/json")
    status, _, body = curl("--http2", *sent, f"{api.url}/v1/operations")
    assert (status, json.loads(body)["id"], json.loads(body)["kind"]) == (201, "offered", "import")
    api.finish("offered")
    status, _, body = curl("--http2", f"{api.stream('offered')}?from=start")
    assert (status, [message.type for message in sse.read(body.encode())][-1]) == (200, "end")
