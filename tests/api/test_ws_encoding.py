"""A WebSocket's message has the content of a stream's event. Checked with the vectors of the wire contract."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from progress_broker.model.event import Event
from progress_broker.stream.frames import (
    PING,
    PING_EVENT,
    Frame,
    children_frame,
    make_frame,
    opening_frame,
    reconnect_frame,
)
from progress_server.http.rejections import close_code, problem_message
from progress_server.websocket.outlet import WRAPPED, Reconnect
from tests import sse

FRAMES = json.loads((Path(__file__).parents[1] / "contract" / "vectors.json").read_text("utf-8"))["frames"]


def same(frame: Frame) -> dict[str, Any]:
    said = WRAPPED.encode((frame,))
    [text] = said.texts
    assert said.size == len(text.encode())
    message: dict[str, Any] = orjson.loads(text)
    [event] = sse.read(frame.wire)
    assert (message["event"], message.get("id", ""), message["data"]) == (event.type, event.id, event.json)
    assert text.endswith(f'"data":{event.data}}}'), "the publisher's JSON is passed through as it is"
    return message


@pytest.mark.parametrize("vector", FRAMES, ids=lambda vector: vector["name"])
def test_an_event_of_the_log(vector: dict[str, Any]) -> None:
    entry = vector["entry"]
    fields = (entry["operation"].encode(), entry["position"].encode(), entry["n"], entry["type"].encode())
    same(make_frame(Event(*fields, bytes.fromhex(entry["data_hex"]))))


def test_one_without_a_position() -> None:
    assert "id" not in same(children_frame("a", 1, b"{}"))


def test_several_at_once_are_messages_of_their_own() -> None:
    frames = [make_frame(Event(b"a", b"%d-0" % n, n, b"log", b"{}")) for n in range(1, 4)]
    said = WRAPPED.encode(frames)
    assert [orjson.loads(text)["data"]["n"] for text in said.texts] == [1, 2, 3]
    assert not said.end
    assert WRAPPED.encode([*frames, make_frame(Event(b"a", b"4-0", 4, b"end", b'{"status":"failed"}'))]).end


def test_control_frames_are_the_sockets_own_matter() -> None:
    for frame in (PING, PING_EVENT, opening_frame(1)):
        assert not WRAPPED.encode((frame,)).texts
    assert WRAPPED.encode((reconnect_frame("gone", 1234),)).reconnect == Reconnect("gone", 1234)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("draining", 1012),
        ("max-age", 1013),
        ("expired", 1013),
        ("too-many-streams", 1013),
        ("rate-limited", 1013),
        ("at-capacity", 1013),
        ("storage-unavailable", 1013),
        ("internal", 1011),
        ("unauthenticated", 4001),
        ("forbidden", 4003),
        ("not-found", 4004),
        ("gone", 4010),
        ("invalid", 4022),
    ],
)
def test_close_codes(reason: str, code: int) -> None:
    assert close_code(reason) == code


def test_a_passing_problem_says_when_to_come_back() -> None:
    assert orjson.loads(problem_message("rate-limited", "slow down", retry_s=1.5))["retry_ms"] == 1500
    assert 0 < orjson.loads(problem_message("draining", "stopping"))["retry_ms"] < 10_000
    assert "retry_ms" not in orjson.loads(problem_message("gone", "deleted"))
