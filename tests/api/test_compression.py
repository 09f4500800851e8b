"""gzip: whenever a client joins, the decompressed stream equals the uncompressed one."""

import gzip
import zlib
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_broker.model.event import Event
from progress_broker.settings import Settings
from progress_broker.stream.frames import PING, Frame, make_frame, opening_frame
from progress_server.protocols.extensions import Connection
from progress_server.sse.adopted_gzip import GzipOutlet
from progress_server.sse.asgi import GzipAsgiOutlet
from progress_server.sse.encodings import GZIP_HEADER, accepts_gzip, trailer
from progress_server.sse.encodings import gzip as packing
from tests import sse
from tests.api.raw import STREAM, Client, request
from tests.api.test_operations import OPS, create, finish, publish
from tests.conftest import make_settings

texts = st.one_of(st.text(max_size=40), st.sampled_from(["x" * 5_000, "ä€\U0001f600" * 700, "\0" * 200]))
payloads = texts.map(lambda text: b'"' + text.encode("utf-8", "replace").hex().encode() + b'"')
streams = st.lists(st.one_of(payloads, st.none()), min_size=1, max_size=12)  # None: a ping


def frames(payloads: Sequence[bytes | None]) -> list[Frame]:
    return [
        PING if payload is None else make_frame(Event(b"a", b"%d-0" % n, n, b"custom", payload))
        for n, payload in enumerate(payloads, 1)
    ]


class Wire:
    """A transport that records each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def set_protocol(self, protocol: object) -> None: ...
    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...
    def abort(self) -> None: ...


def unchunked(data: bytes) -> bytes:
    """Return the body that these chunks carry."""
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body, end, data = body + data[: int(size, 16)], data[int(size, 16) :][:2], data[int(size, 16) + 2 :]
        assert end == b"\r\n"
    return body


class TestWhatIsPacked:
    @given(streams, st.data(), st.sampled_from([1, 100, 60_000]))
    def test_reads_as_the_text_up_to_each_event_wherever_a_client_joins(
        self, payloads: list[bytes | None], data: st.DataObject, over: int
    ) -> None:
        encoding = packing(over)
        shared = frames(payloads)
        for joined in {0, data.draw(st.integers(0, len(shared) - 1))}:
            sent, text = GZIP_HEADER, b""
            for frame in [opening_frame(2_000), *shared[joined:]]:
                packed = encoding.encode((frame,))
                assert packed.text == frame.wire
                assert packed.data.endswith(b"\0\0\xff\xff")  # Go's reader returns no data before this
                sent, text = sent + packed.data, text + frame.wire
                reader = zlib.decompressobj(16 + zlib.MAX_WBITS)
                assert reader.decompress(sent) == text  # everything up to here is readable, and nothing is held back
            assert gzip.decompress(sent + trailer(zlib.crc32(text), len(text))) == text

    @given(streams)
    def test_at_once_is_the_same_as_one_by_one(self, payloads: list[bytes | None]) -> None:
        shared, encoding = frames(payloads), packing(100)
        one_by_one = [encoding.encode((frame,)) for frame in shared]
        at_once = encoding.encode(shared)
        assert at_once.data == b"".join(packed.data for packed in one_by_one)
        assert at_once.text == b"".join(packed.text for packed in one_by_one)

    def test_is_made_once(self) -> None:
        [frame] = frames([b'"%b"' % (b"x" * 1_000)])
        once = packing(100).encode((frame,)).data
        assert len(once) < 200
        assert frame.packed == once
        frame.packed = b"kept"
        assert packing(100).encode((frame,)).data == b"kept"

    def test_small_ones_are_carried_as_they_are(self) -> None:
        assert packing(100).encode((PING,)).data == b"\x00\x07\x00\xf8\xff: ping\n\x00\x00\x00\xff\xff"

    def test_the_length_in_the_end_is_that_of_four_bytes(self) -> None:
        assert trailer(1, 2**32 + 5) == b"\x03\x00\x01\x00\x00\x00\x05\x00\x00\x00"


class TestTheAdoptedOutlet:
    @given(st.lists(streams, max_size=4))
    async def test_sends_a_gzip_stream_in_chunks(self, writes: list[list[bytes | None]]) -> None:
        wire = Wire()
        outlet = GzipOutlet(SimpleNamespace(close=lambda: None), Connection(wire, set()), 100)  # type: ignore[arg-type]
        text = b""
        for payloads in writes:
            some = frames(payloads)
            outlet.write(outlet.encoding.encode(some))
            text += b"".join(frame.wire for frame in some)
        assert len(wire.writes) == len(writes)
        outlet.close()
        outlet.connection_lost(None)
        assert b"".join(wire.writes).endswith(b"\r\n0\r\n\r\n")
        assert gzip.decompress(unchunked(b"".join(wire.writes))) == text


ACCEPTED = [
    ("gzip", True),
    ("gzip, deflate, br, zstd", True),
    ("GZip", True),
    ("x-gzip", True),
    ("*", True),
    ("br;q=1.0, *;q=0.1", True),
    ("gzip;q=0.001", True),
    ("gzip ; q=1", True),
    ("deflate,gzip;Q=0.5", True),
    ("identity;q=0, gzip;q=0.2", True),
    ("identity;q=0.5, gzip;q=0.5", True),
    ("identity;q=0, *", True),
    ("gzip;q=0", False),
    ("gzip;q=0.000", False),
    ("gzip;q=0, *", False),
    ("*;q=0", False),
    ("gzip;q=0.4, identity;q=0.5", False),
    ("identity", False),
    ("identity;q=0", False),
    ("", False),
    ("br", False),
    ("notgzip, gzipped", False),
    ("gzip;q=2", False),
    ("gzip;q=-1", False),
    ("gzip;q=x", False),
    ("gzip;level=9", False),
    (",,;;q=", False),
]


def test_who_accepts_gzip() -> None:
    for value, accepted in ACCEPTED:
        assert accepts_gzip([(b"host", b"gzip"), (b"accept-encoding", value.encode())]) is accepted, value


def test_who_says_nothing_is_sent_it_plain_and_many_lines_are_one() -> None:
    assert not accepts_gzip([])
    assert accepts_gzip([(b"accept-encoding", b"br"), (b"accept-encoding", b"gzip")])
    assert not accepts_gzip([(b"accept-encoding", b"gzip;q=0"), (b"accept-encoding", b"*;q=\xff")])


@pytest.fixture(params=["adopted", "asgi"])
def outlet(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def client(base_url: str, http: httpx.AsyncClient) -> AsyncIterator[Client]:
    await create(http, id="a")
    client = await Client.connect(base_url)
    yield client
    client.close()


@pytest.fixture
def settings() -> Settings:
    return make_settings(ping_s=0.3)


class TestAStream:
    async def test_is_readable_up_to_each_event_as_it_comes_and_has_its_end(
        self, http: httpx.AsyncClient, client: Client
    ) -> None:
        client.send(request(STREAM, "Accept-Encoding: gzip"))
        status, headers = await client.head()
        assert (status, headers["content-encoding"], headers["vary"]) == (200, "gzip", "Accept-Encoding")
        reader, text = zlib.decompressobj(16 + zlib.MAX_WBITS), b""

        async def until(expected: bytes) -> None:
            nonlocal text
            while expected not in text:
                chunk = await client.chunk()
                assert chunk, f"the body ended without {expected!r}: {text!r}"
                text += reader.decompress(chunk)

        await until(b"event: snapshot")
        for i in range(5):
            await publish(http, "a", "log", {"message": f"line {i}" + "-" * 100 * i})
            await until(b"line %d" % i)
        await until(b": ping\n")
        await finish(http, "a")
        await until(b"event: end")
        while chunk := await client.chunk():
            text += reader.decompress(chunk)
        assert reader.eof
        assert reader.unused_data == b""
        assert [message.type for message in sse.read(text)] == ["snapshot", *["log"] * 5, "end"]

    async def test_is_the_same_to_those_who_resume(self, http: httpx.AsyncClient, client: Client) -> None:
        for i in range(20):
            await publish(http, "a", "log", {"message": f"line {i}" * 90})
        await finish(http, "a")
        async with http.stream("GET", f"{STREAM}?from=start", headers={"Accept-Encoding": "identity"}) as answer:
            assert "content-encoding" not in answer.headers
            assert answer.headers["vary"] == "Accept-Encoding"
            plain = await answer.aread()
        packed = await http.get(f"{STREAM}?from=start", headers={"Accept-Encoding": "gzip"})
        assert packed.headers["content-encoding"] == "gzip"
        assert sse.read(packed.content) == sse.read(plain)
        assert int(packed.num_bytes_downloaded) < len(plain) / 1.5
        at = sse.read(plain)[9].id
        for coding in ("gzip", "identity"):
            rest = await http.get(STREAM, headers={"Last-Event-ID": at, "Accept-Encoding": coding})
            assert sse.read(rest.content) == sse.read(plain)[10:]

    async def test_heads_tell_the_same(self, http: httpx.AsyncClient, client: Client) -> None:
        for coding, told in (("gzip", "gzip"), ("identity", None)):
            answer = await http.head(STREAM, headers={"Accept-Encoding": coding})
            assert answer.headers.get("content-encoding") == told
            assert answer.headers["vary"] == "Accept-Encoding"

    async def test_http_1_0_is_sent_it_plain(self, http: httpx.AsyncClient, client: Client) -> None:
        client.send(request(STREAM, "Accept-Encoding: gzip", version="1.0"))
        _, headers = await client.head()
        assert "content-encoding" not in headers

    async def test_other_answers_are_left_as_they_are(self, http: httpx.AsyncClient, client: Client) -> None:
        answer = await http.get(f"{OPS}/b/stream", headers={"Accept-Encoding": "gzip"})
        assert answer.status_code == 404
        assert "content-encoding" not in answer.headers


class TestTurnedOff:
    @pytest.fixture
    def settings(self) -> Settings:
        return make_settings(gzip_min_bytes=0)

    async def test_nobody_is_sent_gzip(self, http: httpx.AsyncClient, client: Client) -> None:
        client.send(request(STREAM, "Accept-Encoding: gzip"))
        headers = await client.opened()
        assert not {"content-encoding", "vary"} & set(headers)


class TestSlowClients:
    async def test_one_catches_up_with_what_is_packed(
        self, app: Any, http: httpx.AsyncClient, client: Client, outlet: str
    ) -> None:
        import random

        client.send(request(STREAM, "Accept-Encoding: gzip"))
        await client.head()
        [channel] = app.state.context.hub.channels
        [subscription] = channel.subscriptions
        kind = GzipOutlet if outlet == "adopted" else GzipAsgiOutlet
        events = 0
        while subscription.mode.value == "live" or events < 100:
            body = [{"type": "log", "data": {"message": random.randbytes(20_000).hex()}} for _ in range(10)]
            (await http.post(f"{OPS}/a/events", json=body)).raise_for_status()
            events += 10
            assert events < 2_000, "it never became slow"
        assert isinstance(subscription.outlet, kind)
        await finish(http, "a")
        text = gzip.decompress(await client.body())
        assert (text.count(b"event: log"), text.count(b"event: end")) == (events, 1)
