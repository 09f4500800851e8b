"""Asks sentinels which server is the master of a service, and reads what they announce. No I/O happens here.

The owner of the connections runs each step that a generator yields, and sends the reply back into it.
"""

from collections.abc import Collection, Generator, Sequence
from typing import Any, NamedTuple

import redis.exceptions

from progress_broker.routing.address import Endpoint, RedisAddress
from progress_broker.routing.server_kind import WrongKind

ASK_S = 0.5
"""How long each sentinel has for its answer."""
QUIET_S = 10.0
"""How long a sentinel may announce nothing, before it is asked whether it still answers."""
ANSWER_S = 2.0
"""How long it may take to answer then."""

TRIES_S = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""The pauses before each try of a server that is announced as the master, while it says that it is a replica."""

_SWITCHED = "+switch-master"
_PROMOTING = ("+failover-state-wait-promotion", "+promoted-slave")
_CHANNELS = (_SWITCHED, *_PROMOTING)
"""The sentinel that leads a failover announces the first of `_PROMOTING` when it has told a replica to be the master.
It notices a second later that the replica is one, and tells the other sentinels, which announce `_SWITCHED` then. It
announces that itself some seconds later. What is written to the old master meanwhile is lost."""

_NOT_A_SENTINEL = (
    "{} is not a Redis Sentinel: write redis://{} in PROGRESS_REDIS_URL for a single server,"
    " or name the sentinels that watch it"
)
_UNKNOWN_SERVICE = (
    "the sentinels at {} watch no master with the name {}: write the name that `sentinel monitor` gives it in their"
    " configuration"
)
_NOT_PERMITTED = (
    "the sentinel {} rejected the user or password ({}): write them as ?sentinel_user=…&sentinel_password=… in"
    " PROGRESS_REDIS_URL"
)

Words = Sequence[str]


class Named(NamedTuple):
    """A master that a sentinel names: when it is asked, or by an announcement of a change."""

    endpoint: Endpoint
    announced: bool


class Read(NamedTuple):
    """Read the next reply, or message, for so long. The answer to this step is None if there is none."""

    patience_s: float


def question(service: str) -> Words:
    """Return the command that asks a sentinel for the master of a service."""
    return ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)


def find_master(
    address: RedisAddress, order: Sequence[Endpoint], left: Collection[Endpoint] = ()
) -> Generator[Endpoint, Any, tuple[Endpoint, Endpoint]]:
    """Ask one sentinel after the other; return the master, and the sentinel that named it.

    Each step is the sentinel to ask `question` now. Its answer is the reply, or the error with which asking failed. The
    servers in `left` are believed only if no sentinel names another one: a sentinel learns of a failover late.

    Raises `WrongKind` if the address can never be used, and `ConnectionError` if no sentinel answers.
    """
    failures: dict[Endpoint, Exception] = {}
    reasons: list[str] = []
    late: tuple[Endpoint, Endpoint] | None = None
    for sentinel in order:
        reply = yield sentinel
        if isinstance(reply, Exception):
            failures[sentinel] = reply
            reasons.append(f"{sentinel}: {reply}")
            continue
        master = read_master(reply, address)
        if master is not None and master not in left:
            return master, sentinel
        if master is None:
            reasons.append(f"{sentinel}: watches no master with the name {address.service}")
        elif late is None:
            late = master, sentinel
    if late is not None:
        return late
    for sentinel, error in failures.items():
        _check_lasting(sentinel, error)
    if not failures:
        raise WrongKind(_UNKNOWN_SERVICE.format(address.shown, address.service))
    raise redis.exceptions.ConnectionError(f"no sentinel of {address.shown} names a master ({'; '.join(reasons)})")


def _check_lasting(sentinel: Endpoint, error: Exception) -> None:
    """Raise `WrongKind` if an error of a sentinel can't pass."""
    cause = error.__cause__ if isinstance(error.__cause__, redis.exceptions.RedisError) else error
    text = str(cause)
    refused = (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)
    if isinstance(cause, refused) or text.startswith(("NOAUTH", "NOPERM", "WRONGPASS")):
        raise WrongKind(_NOT_PERMITTED.format(sentinel, cause))
    if isinstance(cause, redis.exceptions.ResponseError) and "unknown command" in text.lower():
        raise WrongKind(_NOT_A_SENTINEL.format(sentinel, sentinel))


def listen(address: RedisAddress) -> Generator[Sequence[Words] | Read | Named, Any, None]:
    """Hear from one sentinel which server is the master now, and each time it changes, until the connection breaks.

    Each step is either commands to send in one write, or `Read`, or what the sentinel `Named`. It asks and subscribes
    in one write, so that no change is missed in between. Raises what Redis replied if that was an error.
    """
    yield [question(address.service), ("SUBSCRIBE", *_CHANNELS)]
    master = read_master(_checked((yield Read(ANSWER_S))), address)
    if master is not None:
        yield Named(master, announced=False)
    for _ in _CHANNELS:
        _checked((yield Read(ANSWER_S)))
    while True:
        message = yield Read(QUIET_S)
        if message is None:
            yield [("PING",)]
            message = yield Read(ANSWER_S)
        master = _read_announcement(_checked(message), address)
        if master is not None:
            yield Named(master, announced=True)


def _checked(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    if reply is None:
        raise redis.exceptions.ConnectionError("the sentinel does not answer")
    return reply


def read_master(reply: Any, address: RedisAddress) -> Endpoint | None:
    """Return where the master in a sentinel's answer is reached from here; None if the sentinel knows none."""
    match reply:
        case [host, port]:
            return _reached(_text(host), _text(port), address)
    return None


def _read_announcement(message: Any, address: RedisAddress) -> Endpoint | None:
    """Return the new master that a message names; None if it is about another service, or of another kind."""
    match message:
        case [b"message", channel, text]:
            words = _text(text).split(" ")
            match words:
                case [address.service, _, _, host, port] if _text(channel) == _SWITCHED:
                    return _reached(host, port, address)
                case [_, _, host, port, "@", address.service, *_] if _text(channel) in _PROMOTING:
                    return _reached(host, port, address)
    return None


def _reached(host: str, port: str, address: RedisAddress) -> Endpoint:
    announced = Endpoint(host.lower(), int(port))
    return address.reachable.get(announced, announced)


def _text(part: Any) -> str:
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part)
