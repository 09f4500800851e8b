"""How a client connects and asks: its socket, its request, and when the kernel says that something came."""

import resource
import socket
import struct
from typing import NamedTuple

PORTS_AN_ADDRESS = 20_000  # of the 28,000 that Linux has for outgoing connections
_IP_BIND_ADDRESS_NO_PORT = 24
_SO_TIMESTAMPNS = 35
_TIMESTAMP = struct.Struct("qq")


class Plan(NamedTuple):
    """Where clients connect to, and how. A `{}` in the path is the operation's number, from 0."""

    port: int
    path: str
    host: str = "127.0.0.1"
    operations: int = 1
    key: str = '"n":'
    """What an event's sequence number follows."""
    headers: tuple[str, ...] = ()
    reopen: bool = False
    """Whether a client that was cut off comes back with its position."""
    arrival: bool = False
    """Whether an event counts as delivered when the kernel has it, not when it was read from there."""
    segment_bytes: int = 0
    """The TCP segments to ask for: loopback's own are 64 KiB, and the kernel holds megabytes for a slow reader."""
    receive_bytes: int = 0
    """The receive buffer to ask for."""


def new_socket(plan: Plan, number: int) -> socket.socket:
    """Return the socket for the client of this number; where clients are many they share out the source addresses."""
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
    """Return the time in what the kernel adds to a read, as `time.time_ns` tells it."""
    seconds, ns = _TIMESTAMP.unpack(timestamp)
    return int(seconds * 1_000_000_000 + ns)


def raise_file_limit(connections: int) -> None:
    """Take all the files we may have; end if those connections need more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and connections + 100 > hard:
        raise SystemExit(f"{connections:,} connections need more files than may be open ({hard:,}): see `ulimit -n`")
