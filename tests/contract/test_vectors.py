"""The server's side of the contract, and this suite's own reader of streams, held to the shared vectors."""

import json
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from progress_broker.errors import InvalidInput
from progress_broker.model.children import Child, Tree
from progress_broker.model.entry import read_publish_request
from progress_broker.model.event import Event, LastEvent
from progress_broker.model.operation import EVENT_TYPE, OPERATION_ID, RESERVED_TYPES, NewOperation, Operation, Status
from progress_broker.model.position import milliseconds, parse
from progress_broker.settings import Settings
from progress_broker.stream.frames import children_frame, make_frame, snapshot_frame
from tests import sse
from tests.conftest import make_settings
from tests.e2e.harness import node_with_packages, run

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text("utf-8"))
POSITIONS, TYPES, IDS = VECTORS["positions"], VECTORS["event_types"], VECTORS["operation_ids"]


def named(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", VECTORS[kind], ids=lambda vector: vector["name"])


def test_javascript_holds_to_them_too() -> None:
    done = run([node_with_packages(), "--test", "tests/contract/vectors.test.mjs"], 60)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.parametrize(("text", "ms", "sequence"), POSITIONS["valid"])
def test_a_position(text: str, ms: str, sequence: str) -> None:
    assert parse(text) == (int(ms), int(sequence))
    assert milliseconds(text.encode()) == int(ms)


def test_positions_sort_as_redis_sorts_them() -> None:
    assert sorted(sorted(POSITIONS["ordered"]), key=parse) == POSITIONS["ordered"]


@pytest.mark.parametrize("text", POSITIONS["invalid"])
def test_what_is_no_position(text: str) -> None:
    with pytest.raises(InvalidInput) as rejected:
        parse(text)
    assert rejected.value.field == "position"
    assert len(rejected.value.detail) < 400


class TestTypes:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings()

    @pytest.mark.parametrize("type", TYPES["valid"])
    def test_valid(self, type: str) -> None:
        assert re.fullmatch(EVENT_TYPE, type)

    @pytest.mark.parametrize("type", TYPES["invalid"] + TYPES["reserved"])
    def test_not_to_be_published(self, settings: Settings, type: str) -> None:
        with pytest.raises(InvalidInput) as rejected:
            read_publish_request({"type": type, "data": {}}, settings)
        assert rejected.value.field == "type"

    def test_reserved(self) -> None:
        assert set(TYPES["reserved"]) == RESERVED_TYPES


@pytest.mark.parametrize("id", IDS["valid"])
def test_an_id(id: str) -> None:
    assert re.fullmatch(OPERATION_ID, id)
    assert NewOperation(id=id).id == id


@pytest.mark.parametrize("id", IDS["invalid"])
def test_what_is_no_id(id: str) -> None:
    assert re.fullmatch(OPERATION_ID, id) is None
    with pytest.raises(ValueError, match="id"):
        NewOperation(id=id)


@named("streams")
def test_a_stream_is_read_by_the_letter(vector: dict[str, Any]) -> None:
    found = sse.read(vector["text"].encode())
    assert [{"type": event.type, "data": event.data, "id": event.id} for event in found] == vector["events"]


@named("frames")
def test_an_entry_becomes_one_event(vector: dict[str, Any]) -> None:
    entry, told = vector["entry"], vector["event"]
    fields = (entry["operation"].encode(), entry["position"].encode(), entry["n"], entry["type"].encode())
    frame = make_frame(Event(*fields, bytes.fromhex(entry["data_hex"])))
    [event] = sse.read(b"retry: 1\n: connected\n\n" + frame.wire)
    assert (event.type, event.id) == (told["type"], entry["position"])
    data = event.json.pop("data")
    if "data_text" in told:
        assert f'"data":{told["data_text"]}}}' in event.data
    else:
        assert data == told["data"]
    time = int(entry["position"].partition("-")[0])
    assert event.json == {"operation": entry["operation"], "n": entry["n"], "type": told["type"], "time": time}


@named("folds")
def test_the_events_of_folds_are_what_the_server_tells(vector: dict[str, Any]) -> None:
    """Each is encoded by the server's own code: what JavaScript is shown there is what it will meet."""
    for event in vector["events"]:
        if "snapshot" in event:
            snapshot = event["snapshot"]
            operation = Operation.model_validate(snapshot)
            shared = LastEvent(event["at"]["n"], event["at"]["id"].encode()) if "at" in event else None
            [message] = sse.read(snapshot_frame(operation, event.get("reset"), shared).wire)
            assert message.json["data"] == snapshot
            assert message.json.get("reset") == event.get("reset")
            if "at" in event:
                assert {"n": message.json["n"], "id": message.id} == event["at"]
            else:
                assert message.json["n"] == snapshot["events"]
                assert message.id == ("" if snapshot["done"] else snapshot["position"])
        elif "children" in event:
            [message] = sse.read(children_frame("import-42", event["time"], orjson.dumps(event["children"])).wire)
            assert (message.type, message.id) == ("children", "")
            assert message.json == {
                "operation": "import-42", "type": "children", "time": event["time"], "data": event["children"]
            }  # fmt: skip
            assert _family(event["children"]) == event["children"]
        else:
            fields = (b"import-42", event["id"].encode(), event["n"], event["type"].encode())
            [message] = sse.read(make_frame(Event(*fields, orjson.dumps(event["data"]))).wire)
            assert message.json["data"] == event["data"]
            assert (message.type, message.id) == (event["type"], event["id"])
    if any("snapshot" in event for event in vector["events"]):
        shown = Operation.model_validate(vector["state"]["operation"]).model_dump(mode="json")
        assert shown == vector["state"]["operation"]


def _family(told: dict[str, Any]) -> dict[str, Any]:
    """Return what is told of children as the server tells it of children that are so."""
    tree = Tree()
    for number, brief in enumerate(told["operations"]):
        progress = {name: brief[name] for name in ("percent", "message") if name in brief}
        given = {name: brief[name] for name in ("id", "kind", "title", "weight")}
        status = Status(brief["status"])
        tree.add("p", [*tree.of("p"), Child(**given, status=status, progress=orjson.dumps(progress), created=number)])
    summary = tree.summary("p")
    empty = {name: 0 for name in told if name != "operations"}
    return (summary.model_dump() if summary else empty) | {"operations": tree.listed("p")}
