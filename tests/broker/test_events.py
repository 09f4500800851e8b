import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_broker.model.event import Event, read_entry
from progress_broker.stream.frames import make_frame
from tests import sse

NASTY = [
    b'{"a":"line\\nbreak\\r\\ndata: x\\n\\nevent: y"}',
    '{"a":"\u2028\u2029 data: \u0085"}'.encode(),
    b'{"a":"nul \\u0000"}',
    b'{\n  "pretty": [\r\n 1,\n 2]\n}',
    orjson.dumps({"a": "ä" * 30_000}),
    b"null",
    b'"data: x"',
]
BROKEN = [
    b"",
    b"\xff\xfe",
    b'{"a":"\xc3"}',
    b"{",
    b'{"a":"raw\nbreak"}',
    b'{"a":\x00}',
    b"NaN",
    b"data: x\n\n",
    b"[" * 5000,
]


def read_one(data: bytes, type: bytes = b"custom.name") -> sse.Message:
    frame = make_frame(Event(b"op-1", b"1700000000000-3", 17, type, data))
    assert frame.wire.count(b"\n\n") == 1
    assert frame.wire.endswith(b"\n\n")
    [message] = sse.read(frame.wire)
    assert message.id == "1700000000000-3"
    assert message.type == message.json["type"] == frame.type.decode()
    assert (message.json["operation"], message.json["n"]) == ("op-1", 17)
    assert message.json["time"] == 1_700_000_000_000
    assert frame.envelope.decode() == message.data
    return message


@pytest.mark.parametrize("data", NASTY, ids=range(len(NASTY)))
def test_any_json_arrives_as_it_is(data: bytes) -> None:
    message = read_one(data)
    assert message.type == "custom.name"
    assert message.json["data"] == orjson.loads(data)


@pytest.mark.parametrize("data", BROKEN, ids=range(len(BROKEN)))
def test_what_is_not_json_is_replaced_by_a_marker(data: bytes) -> None:
    message = read_one(data)
    assert message.type == "malformed"
    assert message.json["data"] == {"reason": "its data is not JSON", "bytes": len(data)}


@pytest.mark.parametrize("data", [b"{", b"{}", b"null", b'{"status":[]}', b'{"status":"running"}', b'"\xff'])
def test_an_end_that_is_no_outcome_is_one_that_failed(data: bytes) -> None:
    message = read_one(data, b"end")
    assert message.type == "end"
    assert message.json["data"]["status"] == "failed"
    assert message.json["data"]["error"]["type"] == "malformed"


def test_an_end_in_broken_utf8_keeps_its_status() -> None:
    assert read_one(b'{"status":"succeeded","result":"\xff"}', b"end").json["data"]["status"] == "succeeded"


@pytest.mark.parametrize("type", [b"", b"a\nb", b"Progress", b"x: y", b"\xff", b"a" * 65])
def test_a_type_that_is_none_is_replaced_by_a_marker(type: bytes) -> None:
    assert read_one(b"{}", type).json["data"]["reason"] == "its type is not a name"


@given(st.binary(max_size=300) | st.text().map(str.encode), st.binary(max_size=70))
def test_no_bytes_break_the_framing(data: bytes, type: bytes) -> None:
    read_one(data, type)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.booleans())
def test_all_json_passes_through(value: object, pretty: bool) -> None:
    data = orjson.dumps(value, option=orjson.OPT_INDENT_2 if pretty else 0)
    assert read_one(data).json["data"] == value


@given(st.lists(st.tuples(st.binary(), st.binary()), max_size=5).map(lambda pairs: [x for pair in pairs for x in pair]))
def test_no_entry_of_a_foreign_hand_raises(fields: list[bytes]) -> None:
    found = read_entry(b"a", [b"1-0", fields])
    assert found is None or isinstance(found.n, int)


def test_an_entry_without_fields_is_none() -> None:
    assert read_entry(b"a", [b"1-0", None]) is None
