"""Many clients of server-sent events in one process.

They use raw sockets and epoll, so that the server is the bottleneck.
"""

import errno
import heapq
import os
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from itertools import count

from bench.dialing import Plan, arrived_ns, new_socket, raise_file_limit, request
from bench.sse import Follower, Response, Tally

__all__ = ["Client", "Clients", "Plan"]

READ_BYTES = 1 << 18
OPENED_A_TURN = 64
CHECK_S = 0.005
LOST_S = 0.1
"""How long a disconnected client waits before it reconnects."""


class Client:
    __slots__ = ("attached", "connecting", "follower", "number", "over", "position", "response", "socket")

    def __init__(self, number: int, follower: Follower) -> None:
        self.number, self.follower = number, follower
        self.position: str | None = None  # to resume after
        self.response = Response()
        self.socket: socket.socket | None = None
        self.connecting = self.attached = False
        self.over = False
        """Whether it will not reconnect: it was rejected permanently, or disconnected."""


class Clients:
    """The clients and their event loop. Everything happens within `turn`, or within methods that call it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tally = Tally()
        self.all: list[Client] = []
        self.rejected = self.cut_off = 0
        self.failures: Counter[str] = Counter()
        self._epoll = select.epoll()
        self._by_fd: dict[int, Client] = {}
        self._opening: deque[Client] = deque()
        self._opened, self._opening_since, self._open_rate = 0, 0.0, 1.0
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._view = memoryview(bytearray(READ_BYTES))
        self._views = [self._view]

    def watch(self, fd: int) -> None:
        """Let `turn` report when this file descriptor is readable."""
        self._epoll.register(fd, select.EPOLLIN)

    def add(self, clients: int, at_once: int | None = None) -> list[Client]:
        """Add clients. At most `at_once` of them are connected at a time."""
        key, first = self.plan.key.encode(), len(self.all)
        new = [Client(number, Follower(self.tally, key)) for number in range(first, first + clients)]
        self.all += new
        raise_file_limit(at_once or len(self.all))
        return new

    def open(self, clients: list[Client], a_second: float) -> None:
        """Connect these clients one after another. A connected client is first disconnected."""
        self._opening.extend(clients)
        self._opened, self._opening_since, self._open_rate = 0, time.monotonic(), a_second

    def all_attached(self) -> bool:
        """Whether each client is attached or has permanently failed."""
        return not self._opening and all(client.attached or client.over for client in self.all)

    def pause(self, client: Client, seconds: float) -> None:
        """Stop reading for a while."""
        paused = client.socket
        if paused is None:
            return

        def read_on() -> None:
            if client.socket is paused:
                self._epoll.modify(paused, select.EPOLLIN)

        self._epoll.modify(paused, 0)
        self._at(time.monotonic() + seconds, read_on)

    def run_until(self, condition: Callable[[], bool], within_s: float) -> bool:
        end = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > end:
                return False
            check = time.monotonic() + CHECK_S
            while time.monotonic() < check:
                self.turn(CHECK_S)
        return True

    def turn(self, longest_s: float = 1.0) -> bool:
        """Run due actions, wait for the next I/O event, handle it.

        Return whether the watched file descriptor is ready.
        """
        watched = False
        wait_s = min(longest_s, self._do_what_is_due())
        for fd, _ in self._epoll.poll(wait_s, 512):
            client = self._by_fd.get(fd)
            if client is None:
                watched = True
            elif client.connecting:
                self._connected(client)
            else:
                self._read(client)
        return watched

    def disconnect(self) -> None:
        """Close all connections. They stay closed until they are opened again."""
        self._opening.clear()
        self._later.clear()
        for client in self.all:
            self._disconnect(client)

    def close(self) -> None:
        self.disconnect()
        self._epoll.close()

    # Timers

    def _do_what_is_due(self) -> float:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()
        next_s = self._later[0][0] - now if self._later else 1.0
        if self._opening:
            due = int((now - self._opening_since) * self._open_rate) + 1 - self._opened
            for _ in range(min(due, OPENED_A_TURN, len(self._opening))):
                self._opened += 1
                self._connect(self._opening.popleft())
            next_s = min(next_s, 0.0 if due > OPENED_A_TURN else 1 / self._open_rate)
        return max(0.0, next_s)

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._later, (when, next(self._order), act))

    # One connection

    def _connect(self, client: Client) -> None:
        self._disconnect(client)
        connecting = new_socket(self.plan, client.number)
        client.socket, client.connecting = connecting, True
        client.response, client.over = Response(), False
        self._by_fd[connecting.fileno()] = client
        self._epoll.register(connecting, select.EPOLLOUT)
        problem = connecting.connect_ex((self.plan.host, self.plan.port))
        if problem not in (0, errno.EINPROGRESS):
            self._give_up(client, os.strerror(problem))

    def _connected(self, client: Client) -> None:
        connected = client.socket
        assert connected is not None
        problem = connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            self._give_up(client, os.strerror(problem))
            return
        client.connecting = False
        self._epoll.modify(connected, select.EPOLLIN)
        connected.send(request(self.plan, client.number, client.position))

    def _read(self, client: Client) -> None:
        source = client.socket
        assert source is not None
        try:
            if self.plan.arrival:
                size, ancillary, _, _ = source.recvmsg_into(self._views, 64)
            else:
                size, ancillary = source.recv_into(self._view), []
        except BlockingIOError:
            return
        except OSError:
            size, ancillary = 0, []
        if not size:
            self._lost(client)
            return
        now_ns = arrived_ns(ancillary[0][2]) if ancillary else time.time_ns()
        self.tally.bytes += size
        response = client.response
        try:
            blocks = response.feed(self._view[:size].tobytes())
        except ValueError as error:
            self._give_up(client, str(error))
            return
        if blocks:
            client.follower.take(blocks, now_ns)
        if not client.attached and response.status:
            if response.status != 200:
                self._give_up(client, f"status {response.status}")
                return
            client.attached = True
        if response.ended:
            self._lost(client)

    def _lost(self, client: Client) -> None:
        """Handle a lost connection.

        If the server asked to reconnect, use its delay; otherwise reconnect if the plan says so.
        """
        self._disconnect(client)
        follower = client.follower
        client.position = follower.position() or client.position
        if follower.retry_ms is not None:
            wait_s, follower.retry_ms = follower.retry_ms / 1000, None
            self.rejected += 1
        elif self.plan.reopen:
            wait_s = LOST_S
            self.cut_off += 1
        else:
            self.cut_off += 1
            client.over = True
            return

        def come_back() -> None:
            if client.socket is None:
                self._connect(client)

        self._at(time.monotonic() + wait_s, come_back)

    def _give_up(self, client: Client, why: str) -> None:
        self._disconnect(client)
        client.over = True
        self.failures[why] += 1

    def _disconnect(self, client: Client) -> None:
        if client.socket is not None:
            del self._by_fd[client.socket.fileno()]
            client.socket.close()  # this also removes it from epoll
        client.socket, client.connecting, client.attached = None, False, False
