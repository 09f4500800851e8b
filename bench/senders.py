"""The publisher of one operation: it sends events at a steady rate, to Redis by the real script, or to a server by
POST."""

import re
import socket
import time
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

from bench.harness import keyspace_of, settings_for
from bench.processes import serve
from progress_broker.model.entry import NewEvent
from progress_broker.model.operation import NewOperation
from progress_broker.nodes.calls import Call
from progress_broker.nodes.node import connect
from progress_broker.operations.commands import create_call, publish_call, read_answer
from progress_workers.transport.over_redis.pipeline import run_pipeline

OPERATION = "operation"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Published(NamedTuple):
    events: int
    seconds: float
    cpu_s: float


class Sender(Protocol):
    def send(self, first: int, events: int) -> None:
        """Publish `events` events together, numbered from `first`. Return when they are accepted."""


class Target(NamedTuple):
    """Where to publish: a Redis, or a port and a path."""

    url: str = ""
    port: int = 0
    as_list: bool = False
    """Whether events published together are sent as one JSON list, or as one request each."""


def run(pipe: Connection, target: Target, type: str, payload_bytes: int) -> None:
    """The process: it publishes on request."""
    sender: Sender
    if target.url:
        sender = Script(target.url, type, payload_bytes)
    else:
        sender = Post(target.port, target.as_list, type, payload_bytes)
    published = 0

    def publish(seconds: float, events_a_second: float, together: int) -> Published:
        nonlocal published
        done = paced(sender, published + 1, seconds, events_a_second, together)
        published += done.events
        return done

    serve(pipe, publish)


def paced(sender: Sender, first: int, seconds: float, events_a_second: float, together: int) -> Published:
    """Publish the events of `seconds` at a steady rate. Stop after twice that time if the target is too slow."""
    began, cpu_s = time.perf_counter(), time.process_time()
    times = max(1, round(seconds * events_a_second / together))
    done = 0
    for number in range(times):
        now = time.perf_counter() - began
        if now > 2 * seconds:
            break
        time.sleep(max(0.0, number * seconds / times - now))
        sender.send(first + done, together)
        done += together
    time.sleep(max(0.0, began + seconds - time.perf_counter()))
    return Published(done, time.perf_counter() - began, time.process_time() - cpu_s)


class Script:
    """Publishes through the publish script. Events sent together are one call."""

    def __init__(self, url: str, type: str, payload_bytes: int) -> None:
        settings = settings_for(url)
        self._client: Any = connect(settings)
        self._keys = keyspace_of(self._client, settings).operation(OPERATION)
        self._type, self._padding = type, _padding(payload_bytes)
        # Without a lease, so that no heartbeats are needed.
        self._call(create_call(OPERATION, self._keys, NewOperation(id=OPERATION, lease_s=None), settings))
        self._call(publish_call(OPERATION, self._keys, [NewEvent("status", b'{"status":"running"}', "running")]))

    def send(self, first: int, events: int) -> None:
        entries = [NewEvent(self._type, _payload(seq, self._padding)) for seq in range(first, first + events)]
        self._call(publish_call(OPERATION, self._keys, entries))

    def _call(self, call: Call) -> None:
        for reply in run_pipeline(self._client, [call]):
            read_answer(reply)


class Post:
    """Publishes over one connection. Events sent together are one request with a list, or pipelined requests."""

    def __init__(self, port: int, as_list: bool, type: str, payload_bytes: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._as_list, self._padding = as_list, _padding(payload_bytes)
        self._head = b"POST /publish HTTP/1.1\r\nHost: 127.0.0.1\r\nX-EventSource-Event: %b\r\n" % type.encode()
        self._received = b""

    def send(self, first: int, events: int) -> None:
        bodies = [_payload(seq, self._padding) for seq in range(first, first + events)]
        if self._as_list:
            bodies = [b"[%b]" % b",".join(bodies)]
        self._socket.sendall(b"".join(self._request(body) for body in bodies))
        for _ in bodies:
            self._read_answer()

    def _request(self, body: bytes) -> bytes:
        return b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body)

    def _read_answer(self) -> None:
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, _, rest = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if length is None or not head.startswith(b"HTTP/1.1 20"):
            raise RuntimeError(f"rejected: {head[:200]!r}")
        self._received = rest
        while len(self._received) < int(length[1]):
            self._receive()
        self._received = self._received[int(length[1]) :]

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise RuntimeError("the server closed the publisher's connection")
        self._received += data


def _padding(payload_bytes: int) -> bytes:
    return b"x" * (payload_bytes - len(_payload(1, b"")))


def _payload(seq: int, padding: bytes) -> bytes:
    return b'{"seq":%d,"ts_ns":%d,"message":"%b"}' % (seq, time.time_ns(), padding)
