"""Asks sentinels for their master, and listens to one of them, with threads."""

import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Lock, Thread
from typing import Any

import redis.exceptions

from progress_broker.nodes.generations import ConnectionGeneration
from progress_broker.nodes.sentinels.connections import sentinel_connection, to_master
from progress_broker.nodes.sentinels.known import RETRY_S, Answer, KnownMaster, Step, Try
from progress_broker.routing.address import Endpoint, RedisAddress
from progress_broker.routing.sentinels import ASK_S, Read, question
from progress_broker.routing.server_errors import FAILURES
from progress_broker.runtime.steps import run_steps

_NEXT_S = 0.1
"""How long to wait before the next sentinel is listened to when one can't be."""


class ThreadedMaster:
    """The master of a Sentinel set. It listens to one sentinel from the first connection on, as long as it exists.

    Many processes share their sentinels, so each listens to one, and not all to the same.
    """

    def __init__(self, address: RedisAddress, generation: ConnectionGeneration) -> None:
        self.known = KnownMaster(address, generation)
        random.shuffle(self.known.order)
        self.make_connection: Callable[[], Any] | None = None
        """Makes a connection to the master, by which an announced one is tried."""
        self._asking = Lock()
        self._listening: Thread | None = None

    def led(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of a pool, changed so that its connections lead to the master."""
        return to_master(options, self, asynchronous=False)

    def find(self) -> Answer:
        """Return where the master is. All who ask at the same time share one inquiry.

        Raises `WrongKind` if the address can never be used, and `ConnectionError` if no sentinel answers.
        """
        self._start_listening()
        kept = self.known.kept()
        if kept is not None:
            return kept
        # Not for ever: while the interpreter shuts down, a daemon thread may have stopped with the lock.
        alone = self._asking.acquire(timeout=2 * ASK_S * len(self.known.order))
        try:
            return self.known.kept() or self._inquire()
        finally:
            if alone:
                self._asking.release()

    def _inquire(self) -> Answer:
        return run_steps(self.known.inquiry(), self._ask, FAILURES)

    def _ask(self, sentinel: Endpoint) -> Any:
        connection = sentinel_connection(self.known.address, sentinel, asynchronous=False)
        try:
            connection.connect()
            connection.send_command(*question(self.known.address.service))
            return connection.read_response()
        finally:
            connection.disconnect()

    def _start_listening(self) -> None:
        if self._listening is None and not sys.is_finalizing():
            thread = self._listening = Thread(target=self._listen, name="progress-sentinels", daemon=True)
            with suppress(RuntimeError):  # the interpreter is shutting down and starts no more threads
                thread.start()

    def _listen(self) -> None:
        seeds = list(self.known.order)
        while True:
            for sentinel in seeds:
                with suppress(*FAILURES):
                    connection = sentinel_connection(self.known.address, sentinel, asynchronous=False)
                    try:
                        connection.connect()
                        run_steps(self.known.following(sentinel), partial(self._do, connection))
                    finally:
                        connection.disconnect()
                time.sleep(_NEXT_S)
            time.sleep(RETRY_S)

    def _do(self, connection: Any, step: Step) -> Any:
        match step:
            case Read(patience_s):
                return _read(connection, patience_s)
            case Try():
                return self._try(step)
            case commands:
                return connection.send_packed_command(connection.pack_commands(commands), check_health=False)

    def _try(self, server: Try) -> Exception | None:
        if self.make_connection is None:
            return redis.exceptions.ConnectionError("there are no connections yet")
        time.sleep(server.after_s)
        connection = self.make_connection()
        connection.aim(server.answer)
        try:
            connection.connect()
        except FAILURES as error:
            return error
        finally:
            connection.disconnect()
        return None


def _read(connection: Any, patience_s: float) -> Any:
    if not connection.can_read(patience_s):
        return None
    try:
        return connection.read_response()
    except redis.exceptions.ResponseError as error:
        return error
