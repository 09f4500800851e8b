"""The load generator's counting, against a server that cuts, skips, repeats and rejects."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bench.clients import Plan
from bench.contest import faults
from bench.dialing import new_socket
from bench.load import Load
from bench.sse import SIZE_LINE, Follower, Response, Tally

ROOT = Path(__file__).resolve().parents[2]
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\nContent-Type: text/event-stream\r\n\r\n"
PATIENCE_S = 30
LINGER = b""
"""A piece of nothing, at the end of an answer: the server keeps the connection open."""


def event(n: int, *, line: str = "\n", ts_ns: int = 0) -> bytes:
    text = f'id: 5-{n}\nevent: progress\ndata: {{"operation":"a","n":{n},"data":{{"ts_ns":{ts_ns},"m":"data: x"}}}}\n\n'
    return text.replace("\n", line).encode()


def chunks(body: bytes, size: int) -> bytes:
    return b"".join(
        b"%x\r\n%b\r\n" % (len(part), part) for at in range(0, len(body), size) if (part := body[at : at + size])
    )


def fed(reads: list[bytes]) -> tuple[Tally, Follower]:
    tally = Tally()
    response, follower = Response(), Follower(tally, b'"n":')
    for data in reads:
        if blocks := response.feed(data):
            follower.take(blocks, time.time_ns())
    return tally, follower


BODY = b"retry: 2000\n: connected\n\n" + event(7) + event(8) + b": ping\n\n" + event(9)
WIRES = {
    "no framing": PLAIN + BODY,
    "a chunk": CHUNKED + chunks(BODY, 10_000),
    "chunks of 7 bytes": CHUNKED + chunks(BODY, 7),
    "chunks of 100 bytes, CR LF": CHUNKED + chunks(BODY.replace(b"\n", b"\r\n"), 100),
    "a chunk with an extension": CHUNKED + chunks(BODY, 10_000).replace(b"\r\n", b";a=b\r\n", 1),
    "CR LF": PLAIN + BODY.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("wire", WIRES.values(), ids=WIRES.keys())
def test_counts_the_same_wherever_reads_are_cut(wire: bytes) -> None:
    cuts = [[wire[:at], wire[at:]] for at in range(len(wire) + 1)] + [[wire[at : at + 1] for at in range(len(wire))]]
    for reads in cuts:
        tally, follower = fed(reads)
        assert (tally.events, follower.events, tally.gaps, tally.repeats) == (3, 3, 0, 0)
        assert (follower.last, follower.position()) == (9, "5-9")


@pytest.mark.parametrize(
    ("numbers", "gaps", "repeats", "last"),
    [
        ([1, 2, 3, 4], 0, 0, 4),
        ([1, 2, 4, 5], 1, 0, 5),
        ([1, 2, 2, 3], 0, 1, 3),
        ([1, 2, 2, 4], 1, 1, 4),  # as many as if nothing were wrong
        ([1, 3, 2, 4], 1, 1, 4),
        ([5, 9, 12, 1], 2, 1, 12),
    ],
)
def test_each_step_but_by_one_is_a_gap_or_a_repeat(numbers: list[int], gaps: int, repeats: int, last: int) -> None:
    one_by_one = [PLAIN, *(event(n) for n in numbers)]
    together = [PLAIN + b"".join(event(n) for n in numbers)]
    for reads, with_events in ((one_by_one, 4), (together, 1)):
        tally, follower = fed(reads)
        assert tally.reads == with_events
        assert (tally.events, tally.gaps, tally.repeats, follower.last) == (4, gaps, repeats, last)


def test_an_event_is_a_block_with_data_however_many_lines() -> None:
    blocks = b'data: 1\ndata: 2\n\n:data: no\n\nevent: data:\n\ndata\n\nid: 4\ndata: {"n":4}\n\n'
    tally, follower = fed([PLAIN + blocks])
    assert (tally.events, follower.last) == (2, 4)


def test_numbers_at_the_end_of_an_object_and_after_a_space() -> None:
    tally, follower = fed([PLAIN + b'data: {"n": 3}\n\ndata: {"a":0,"n":4}\n\n', b'data: {"n":5 ,"a":1}\n\n'])
    assert (tally.events, tally.gaps, tally.repeats, follower.last) == (3, 0, 0, 5)


@pytest.mark.parametrize(
    "wire", [b"SSH-2.0-x\r\n\r\n\r\n", CHUNKED + b"data: 1\n\n\r\n", CHUNKED + b"x" * SIZE_LINE * 2]
)
def test_what_is_no_response_is_no_silence(wire: bytes) -> None:
    with pytest.raises(ValueError, match=r"HTTP|chunk|base 16"):
        fed([wire])


def test_latencies_are_told_by_their_percentiles_even_when_only_some_are_kept() -> None:
    for limit in (1 << 20, 64):
        tally = Tally(limit)
        for ms in range(1000):
            tally.late(ms * 1_000_000)
        told = tally.latencies_ms()
        assert told["p50"] == pytest.approx(500, rel=0.1)
        assert told["p99"] == pytest.approx(990, rel=0.05)
        assert told["max"] == 999


Answer = Callable[[str, int], Iterable[bytes]]
"""Of a request and how many there were before it: the pieces to send, each in a write of its own."""


class Server:
    """Answers each connection as it is told to."""

    def __init__(self, answer: Answer) -> None:
        self.requests: list[str] = []
        self.times: list[float] = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                request = connection.recv(65536).decode()
                self.times.append(time.monotonic())
                self.requests.append(request)
                piece = b"nothing yet"
                for piece in self._answer(request, len(self.requests) - 1):
                    connection.sendall(piece)
                if piece == LINGER:
                    self._open.append(connection)
                else:
                    connection.close()


@contextmanager
def loaded(answer: Answer, connections: int = 1, **plan: object) -> Iterator[tuple[Server, Load]]:
    with Server(answer) as server:
        load = Load(Plan(server.port, "/stream", **plan))  # type: ignore[arg-type]
        try:
            load.open(connections, within_s=PATIENCE_S)
            yield server, load
        finally:
            load.close()


def await_figure(load: Load, name: str, value: int) -> None:
    """Wait until so much has come, of whomever."""
    assert load.clients.run_until(lambda: load.figures()[name] >= value, PATIENCE_S)
    assert load.figures()[name] == value


def after(request: str) -> int:
    """Return the number of the event whose position a request has, 0 without one."""
    match = re.search(r"Last-Event-ID: 5-(\d+)\r\n", request)
    return int(match[1]) if match else 0


def rejection(retry_ms: int, *, chunked: bool = False) -> bytes:
    body = b'retry: %d\nevent: reconnect\ndata: {"reason":"draining"}\n\n' % retry_ms
    if chunked:
        return CHUNKED + chunks(body, 10) + b"0\r\n\r\n"
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def test_counts_what_many_connections_get() -> None:
    pieces = [CHUNKED, chunks(event(1) + event(2), 50), b": ping\n\n"[:0], chunks(b": ping\n\n" + event(3), 9), LINGER]
    with loaded(lambda *_: pieces, connections=30, headers=("Accept-Encoding: gzip",)) as (server, load):
        assert load.await_events(3, PATIENCE_S)
        told = load.figures()
        assert (told["attached"], told["chunked"], told["events"], told["fewest"], told["most"]) == (30, 30, 90, 3, 3)
        assert (told["gaps"], told["repeats"], told["last"]) == (0, 0, [3, 3])
        assert told["bytes"] == 30 * sum(map(len, pieces))
        assert all("\r\nAccept-Encoding: gzip\r\n" in request for request in server.requests)
        load.mark()
        assert (load.figures()["events"], load.figures()["bytes"], load.figures()["last"]) == (0, 0, [3, 3])


def test_one_connection_that_misses_an_event_is_seen_among_many() -> None:
    with loaded(lambda _, number: [PLAIN, event(1), event(2 + (number == 7)), LINGER], connections=20) as (_, load):
        assert load.await_events(2, PATIENCE_S)
        assert load.figures()["gaps"] == 1
        assert load.figures()["last"] == [2, 3]


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([1, 2, 3], ""),
        ([1, 2], "of 3 events clients got 2 to 3; the numbers of their last events are 2 to 3"),
        ([1, 2, 2], "the numbers of their last events are 2 to 3; 1 repeats"),
        ([1, 2, 3, 3], "of 3 events clients got 3 to 4; 1 repeats"),
        ([1, 3, 4], "the numbers of their last events are 3 to 4; 1 gaps"),
    ],
)
def test_one_client_s_fault_is_a_benchmark_s(numbers: list[int], said: str) -> None:
    def answer(_: str, number: int) -> list[bytes]:
        return [PLAIN, *(event(n) for n in (numbers if number == 7 else [1, 2, 3])), LINGER]

    with loaded(answer, connections=20) as (_, load):
        await_figure(load, "events", 19 * 3 + len(numbers))
        assert faults(3, load.figures()) == said


def test_one_connection_that_gets_less_is_waited_for_in_vain_whatever_others_get() -> None:
    def answer(_: str, number: int) -> list[bytes]:
        return [PLAIN, *(event(n) for n in range(1, {7: 2, 8: 4}.get(number, 3))), LINGER]

    with loaded(answer, connections=20) as (_, load):
        await_figure(load, "events", 40)
        assert not load.await_events(2, 0.1)
        assert (load.figures()["events"], load.figures()["fewest"], load.figures()["most"]) == (40, 1, 3)
        assert load.await_events(1, 0)


@pytest.mark.parametrize("arrival", [False, True])
def test_latency_is_from_the_payload_s_time(arrival: bool) -> None:
    answer: Answer = lambda *_: [PLAIN, event(1, ts_ns=time.time_ns() - 2_000_000_000), LINGER]  # noqa: E731
    with loaded(answer, connections=5, arrival=arrival) as (_, load):
        assert load.await_events(1, PATIENCE_S)
        assert 2000 <= load.figures()["latency_ms"]["p50"] < 4000


def test_a_snapshot_is_counted_and_not_late() -> None:
    snapshot = event(4, ts_ns=1).replace(b"event: progress", b"event: snapshot")
    with loaded(lambda *_: [PLAIN, snapshot, LINGER]) as (_, load):
        assert load.await_events(1, PATIENCE_S)
        assert load.figures()["latency_ms"] == {}
        assert load.figures()["last"] == [4, 4]


@pytest.mark.parametrize(("arrival", "late"), [(False, True), (True, False)])
def test_arrival_is_when_the_kernel_had_it_not_when_it_was_read(arrival: bool, late: bool) -> None:
    attached, sent = threading.Event(), threading.Event()

    def answer(request: str, number: int) -> Iterator[bytes]:
        yield PLAIN
        attached.wait(30)
        yield event(1, ts_ns=time.time_ns())
        sent.set()
        yield LINGER

    with loaded(answer, arrival=arrival) as (_, load):
        attached.set()
        sent.wait(30)
        time.sleep(0.5)
        assert load.await_events(1, PATIENCE_S)
        assert (load.figures()["latency_ms"]["max"] >= 500) is late


def test_connections_are_spread_over_operations() -> None:
    with Server(lambda *_: [PLAIN, LINGER]) as server:
        load = Load(Plan(server.port, "/o/{}/stream", operations=3))
        load.open(7)
        load.close()
    paths = sorted(request.split()[1] for request in server.requests)
    assert paths == ["/o/0/stream"] * 3 + ["/o/1/stream"] * 2 + ["/o/2/stream"] * 2


def test_the_twenty_thousandth_connection_has_another_source_address() -> None:
    sources = []
    for number in (19_999, 20_000, 40_000):
        with new_socket(Plan(1, "/"), number) as made:
            sources.append(made.getsockname()[0])
    assert sources == ["0.0.0.0", "127.0.0.2", "127.0.0.3"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_passing_rejection_is_no_event_and_comes_back_as_late_as_it_was_told(chunked: bool) -> None:
    def answer(request: str, number: int) -> list[bytes]:
        return [rejection(300, chunked=chunked), LINGER] if number == 0 else [PLAIN, event(1), LINGER]

    with loaded(answer) as (server, load):
        assert load.await_events(1, PATIENCE_S)
        assert (load.figures()["rejected"], load.figures()["events"], load.figures()["failures"]) == (1, 1, {})
        assert server.times[1] - server.times[0] >= 0.3


def test_a_stream_that_sends_away_is_gone_on_with_from_its_position() -> None:
    away = b'retry: 10\nevent: reconnect\ndata: {"reason":"max-age"}\n\n'

    def answer(request: str, number: int) -> list[bytes]:
        first = after(request) + 1
        return [PLAIN, event(first), event(first + 1) + (away if number == 0 else b""), *([LINGER] * number)]

    with loaded(answer) as (_, load):
        assert load.await_events(4, PATIENCE_S)
        told = load.figures()
        assert (told["events"], told["gaps"], told["repeats"], told["last"]) == (4, 0, 0, [4, 4])


def test_a_lasting_rejection_is_a_failure() -> None:
    with loaded(lambda *_: [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", LINGER], connections=3) as (
        _,
        load,
    ):
        assert load.figures()["failures"] == {"status 404": 3}
        assert load.figures()["attached"] == 0


def test_who_is_cut_off_stays_away_unless_clients_come_back() -> None:
    for reopen, first_of_second in ((False, 0), (True, 3), (True, 2)):

        def answer(request: str, number: int, again: int = first_of_second) -> list[bytes]:
            return [PLAIN, event(1), event(2)] if number == 0 else [PLAIN, event(again), LINGER]

        with loaded(answer, reopen=reopen) as (server, load):
            await_figure(load, "cut_off", 1)
            assert load.await_events(3, PATIENCE_S if reopen else 0.5) is reopen
            assert load.figures()["cut_off"] == 1
            assert load.figures()["repeats"] == (first_of_second == 2)
            assert [after(request) for request in server.requests] == ([0, 2] if reopen else [0])


def test_a_pause_stops_reading_and_then_all_is_there() -> None:
    paused = threading.Event()

    def answer(request: str, number: int) -> Iterator[bytes]:
        yield PLAIN
        if number == 0:
            paused.wait(30)
        yield from (event(1), event(2), event(3), LINGER)

    with loaded(answer) as (_, load):
        load.mark()
        load.pause(1, 1.5)
        paused.set()
        assert not load.await_events(1, 0.2)
        assert load.figures()["bytes"] == 0
        assert load.await_events(3, PATIENCE_S)
        assert load.figures()["gaps"] == 0


def test_a_storm_reopens_all_with_a_position_and_tells_when_each_has_everything() -> None:
    def answer(request: str, number: int) -> list[bytes]:
        if number in range(20, 25):
            return [rejection(100), LINGER]
        return [PLAIN, *(event(n) for n in range(after(request) + 1, 9)), LINGER]

    with loaded(answer, connections=20) as (server, load):
        assert load.await_events(8, PATIENCE_S)
        load.mark()
        told = load.storm(0.2, "5-3", after=3)
        assert (told["rejected"], told["number"]) == (5, 8)
        assert 0.15 <= told["attached_s"] <= told["complete_s"]
        figures = load.figures()
        assert (figures["events"], figures["gaps"], figures["repeats"]) == (20 * 5, 0, 0)
        assert [after(request) for request in server.requests] == [0] * 20 + [3] * 25


def test_a_storm_without_a_position_goes_on_where_each_was() -> None:
    def answer(request: str, number: int) -> list[bytes]:
        return [PLAIN, event(after(request) + 1), event(after(request) + 2), LINGER]

    with loaded(answer, connections=5) as (_, load):
        assert load.await_events(2, PATIENCE_S)
        assert load.storm(0.1, number=4)["complete_s"] is not None
        assert (load.figures()["gaps"], load.figures()["repeats"], load.figures()["events"]) == (0, 0, 20)


@pytest.mark.parametrize(("second", "code"), [(2, 0), (3, 1), (1, 1)])
def test_the_command_tells_as_json_and_fails_on_a_gap_or_a_repeat(second: int, code: int) -> None:
    with Server(lambda *_: [PLAIN, event(1), event(second), LINGER]) as server:
        command = ["bench.load", f"127.0.0.1:{server.port}", "/s", "--connections", "3", "--events", "2"]
        done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    told = json.loads(done.stdout)
    assert (done.returncode, told["events"], told["gaps"], told["repeats"]) == (
        code,
        6,
        3 * (second == 3),
        3 * (second == 1),
    )
