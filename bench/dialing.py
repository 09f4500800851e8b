"""How a client connects: its socket, its request, and the arrival times from the kernel."""

import resource
import socket
import struct
from typing import NamedTuple

PORTS_AN_ADDRESS = 20_000  # Linux has 28,000 for outgoing connections
_IP_BIND_ADDRESS_NO_PORT = 24
_SO_TIMESTAMPNS = 35
_TIMESTAMP = struct.Struct("qq")


class Plan(NamedTuple):
    """Where and how clients connect. `{}` in the path is replaced by the operation's number, from 0."""

    port: int
    path: str
    host: str = "127.0.0.1"
    operations: int = 1
    key: str = '"n":'
    """The bytes before the sequence number of an event."""
    headers: tuple[str, ...] = ()
    reopen: bool = False
    """Whether a disconnected client reconnects with its position."""
    arrival: bool = False
    """Whether an event counts as delivered when it arrives in the kernel, not when the client reads it."""
    segment_bytes: int = 0
    """The TCP segment size to request. On loopback it is 64 KiB, so the kernel buffers megabytes for a slow reader."""
    receive_bytes: int = 0
    """The size of the receive buffer to request."""


def new_socket(plan: Plan, number: int) -> socket.socket:
    """Return the socket for the client of this number. Many clients are spread over several source addresses."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    if plan.receive_bytes:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, plan.receive_bytes)
    if plan.segment_bytes:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, plan.segment_bytes)
    if plan.arrival:
        made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    if number >= PORTS_AN_ADDRESS and plan.host.startswith("127."):
        made.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        made.bind((f"127.0.0.{1 + number // PORTS_AN_ADDRESS}", 0))
    return made


def request(plan: Plan, number: int, position: str | None) -> bytes:
    path = plan.path.replace("{}", str(number % plan.operations))
    lines = [f"GET {path} HTTP/1.1", f"Host: {plan.host}:{plan.port}", "Accept: text/event-stream", *plan.headers]
    if position is not None:
        lines.append(f"Last-Event-ID: {position}")
    return "\r\n".join([*lines, "", ""]).encode()


def arrived_ns(timestamp: bytes) -> int:
    """Return the kernel's timestamp of a read, in nanoseconds like `time.time_ns`."""
    seconds, ns = _TIMESTAMP.unpack(timestamp)
    return int(seconds * 1_000_000_000 + ns)


def raise_file_limit(connections: int) -> None:
    """Raise the limit of open files to its maximum. Exit if the connections need more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and connections + 100 > hard:
        raise SystemExit(
            f"{connections:,} connections need more open files than the limit of {hard:,}; see `ulimit -n`"
        )
