"""Which server sentinels name the master: asked in turn, heard when it changes, and believed if it says so itself."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import pytest
import redis.exceptions

from progress_broker.nodes.generations import ConnectionGeneration
from progress_broker.nodes.sentinels.known import KEPT_S, LEFT_S, KnownMaster, Try
from progress_broker.routing.address import Endpoint, parse_address
from progress_broker.routing.sentinels import Named, Read, find_master, listen
from progress_broker.routing.server_kind import NotMaster, WrongKind

A, B, C = (Endpoint(name, 26379) for name in "abc")
OLD, NEW = Endpoint("old", 6379), Endpoint("new", 6379)
ADDRESS = parse_address("redis+sentinel://a,b,c/main?nat=10.0.0.1:6379>new:6379")
SAYS_OLD, SAYS_NEW, SAYS_NOTHING = [b"old", b"6379"], [b"10.0.0.1", b"6379"], None
DEAD = redis.exceptions.ConnectionError("refused")
NO_SENTINEL = redis.exceptions.ResponseError("unknown command 'SENTINEL', with args beginning with: ")
NOT_PERMITTED = redis.exceptions.AuthenticationError("Authentication required.")


def answered(asking: Generator[Endpoint, Any, Any], replies: Mapping[Endpoint, Any]) -> tuple[Any, list[Endpoint]]:
    """Return what asking found, and who was asked."""
    asked: list[Endpoint] = []
    reply = None
    while True:
        try:
            asked.append(asking.send(reply))
        except StopIteration as over:
            return over.value, asked
        reply = replies[asked[-1]]


@pytest.mark.parametrize(
    ("replies", "found", "asked"),
    [
        ({A: SAYS_NEW}, (NEW, A), [A]),
        ({A: DEAD, B: SAYS_NOTHING, C: SAYS_NEW}, (NEW, C), [A, B, C]),
        ({A: NO_SENTINEL, B: SAYS_OLD, C: SAYS_NEW}, (NEW, C), [A, B, C]),
        ({A: SAYS_OLD, B: DEAD, C: SAYS_OLD}, (OLD, A), [A, B, C]),
    ],
)
def test_each_is_asked_until_one_names_a_master_that_was_not_left(
    replies: dict[Endpoint, Any], found: Any, asked: list[Endpoint]
) -> None:
    assert answered(find_master(ADDRESS, [A, B, C], left=[OLD]), replies) == (found, asked)


@pytest.mark.parametrize(
    ("replies", "error", "said"),
    [
        ([DEAD, DEAD, DEAD], redis.exceptions.ConnectionError, r"no sentinel of .*a:26379: refused; b:26379: refused;"),
        (
            [SAYS_NOTHING, DEAD, SAYS_NOTHING],
            redis.exceptions.ConnectionError,
            "name main; b:26379: refused; c:26379: watches",
        ),
        ([SAYS_NOTHING] * 3, WrongKind, "watch no master with the name main"),
        ([DEAD, NO_SENTINEL, DEAD], WrongKind, "^b:26379 is not a Redis Sentinel: write redis://b:26379"),
        ([DEAD, DEAD, NOT_PERMITTED], WrongKind, r"c:26379 rejected the user or password \(Authentication required"),
    ],
)
def test_what_can_pass_is_told_apart_from_what_is_wrong_for_good(
    replies: Sequence[Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        answered(find_master(ADDRESS, [A, B, C]), dict(zip((A, B, C), replies, strict=True)))
    assert type(raised.value) is error


SWITCHED = [b"message", b"+switch-master", b"main old 6379 10.0.0.1 6379"]
PROMOTING = [b"message", b"+failover-state-wait-promotion", b"slave 10.0.0.1:6379 10.0.0.1 6379 @ main old 6379"]
PROMOTED = [b"message", b"+promoted-slave", b"slave 10.0.0.1:6379 10.0.0.1 6379 @ main old 6379"]
OTHERS = [
    [b"message", b"+switch-master", b"other old 6379 10.0.0.1 6379"],
    [b"message", b"+promoted-slave", b"slave 10.0.0.1:6379 10.0.0.1 6379 @ other old 6379"],
    [b"message", b"+switch-master", b"nonsense"],
    [b"pong", b""],
]


def test_a_sentinel_is_asked_and_heard_without_a_gap() -> None:
    listening = listen(ADDRESS)
    asked, subscribed = next(listening)  # type: ignore[misc]
    assert (asked[0], subscribed[0]) == ("SENTINEL", "SUBSCRIBE")
    assert isinstance(next(listening), Read)
    assert listening.send(SAYS_OLD) == Named(OLD, announced=False)
    step = next(listening)
    for _ in subscribed[1:]:
        assert isinstance(step, Read)
        step = listening.send([b"subscribe", b"+switch-master", 1])
    for other in OTHERS:
        assert isinstance(listening.send(other), Read)
    for message in (SWITCHED, PROMOTING, PROMOTED):
        assert listening.send(message) == Named(NEW, announced=True)
        assert isinstance(next(listening), Read)
    assert listening.send(None) == [("PING",)]
    assert isinstance(next(listening), Read)
    assert isinstance(listening.send([b"pong", b""]), Read)
    assert listening.send(None) == [("PING",)]
    next(listening)
    with pytest.raises(redis.exceptions.ConnectionError, match="does not answer"):
        listening.send(None)


def test_a_sentinel_that_may_not_be_heard_is_asked_all_the_same() -> None:
    listening = listen(ADDRESS)
    next(listening)
    next(listening)
    assert listening.send(SAYS_NEW) == Named(NEW, announced=False)
    next(listening)
    with pytest.raises(redis.exceptions.NoPermissionError):
        listening.send(redis.exceptions.NoPermissionError("NOPERM"))


class Connection:
    was_cut = False

    def cut(self) -> None:
        self.was_cut = True


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(clock: Clock) -> KnownMaster:
    return KnownMaster(ADDRESS, ConnectionGeneration(clock), clock)


def connect(known: KnownMaster, replies: Mapping[Endpoint, Any]) -> Connection:
    """Connect to whom the sentinels name, who says that it is the master."""
    connection = Connection()
    answer = known.kept() or answered(known.inquiry(), replies)[0]
    known.confirm(answer, connection)
    return connection


def turn_to(known: KnownMaster, endpoint: Endpoint, sentinel: Endpoint) -> Connection:
    """Connect to a server that a sentinel announces, which says that it is the master."""
    connection = Connection()
    answer = known.to_try(Named(endpoint, announced=True))
    assert answer is not None
    known.confirm(answer, connection)
    known.believe(sentinel, endpoint)
    return connection


def test_an_announced_server_is_tried_until_it_says_that_it_is_the_master(known: KnownMaster) -> None:
    connect(known, {A: SAYS_OLD})
    following = known.following(B)
    next(following)
    following.send(None)  # what was asked is sent
    step = following.send(SAYS_OLD)
    for _ in range(3):
        assert isinstance(step, Read), "the master is who it was"
        step = following.send([b"subscribe", b"+switch-master", 1])
    assert isinstance(step, Read)
    step = following.send(PROMOTING)
    pauses = []
    for _ in range(3):
        assert isinstance(step, Try)
        assert step.answer.endpoint == NEW
        pauses.append(step.after_s)
        step = following.send(NotMaster("not yet"))
    assert pauses[0] == 0 < pauses[1] < pauses[2]
    assert isinstance(following.send(DEAD), Read), "whoever needs a connection asks"
    assert isinstance(following.send(PROMOTED), Try)
    assert isinstance(following.send(None), Read)
    answer = known.kept()
    assert answer is not None
    assert (answer.endpoint, known.order) == (NEW, [B, A, C])


def test_a_change_ends_the_generation_at_once_and_cuts_what_waits(known: KnownMaster, clock: Clock) -> None:
    first = connect(known, {A: SAYS_OLD})
    clock.now += KEPT_S
    answer, _ = answered(known.inquiry(), {A: SAYS_OLD})
    known.generation.invalidate(known.generation.number)
    number = known.generation.number  # just ended, which would hold another end back
    second = turn_to(known, NEW, B)
    assert (known.current, known.generation.number) == (NEW, number + 1)
    assert (first.was_cut, second.was_cut) == (True, False)
    with pytest.raises(redis.exceptions.ConnectionError, match="no longer the master"):
        known.confirm(answer, Connection())  # it was named before the change
    assert known.order == [B, A, C]
    connect(known, {B: SAYS_NEW})
    assert known.generation.number == number + 1


def test_a_master_that_was_left_is_believed_only_when_it_is_announced(known: KnownMaster, clock: Clock) -> None:
    connect(known, {A: SAYS_OLD})
    turn_to(known, NEW, A)
    clock.now += KEPT_S
    assert known.to_try(Named(OLD, announced=False)) is None
    assert known.to_try(Named(OLD, announced=True)) is not None
    assert known.to_try(Named(NEW, announced=True)) is None
    assert answered(known.inquiry(), {A: SAYS_OLD, B: SAYS_NEW})[0].endpoint == NEW
    assert answered(known.inquiry(), dict.fromkeys((A, B, C), SAYS_OLD))[0].endpoint == NEW
    clock.now += LEFT_S
    assert known.to_try(Named(OLD, announced=False)) is not None


def test_a_master_that_was_left_is_believed_when_its_successor_fails(known: KnownMaster) -> None:
    connect(known, {A: SAYS_OLD})
    turn_to(known, NEW, A)
    known.failed(NEW)
    assert answered(known.inquiry(), dict.fromkeys((A, B, C), SAYS_OLD))[0].endpoint == OLD


def test_while_no_sentinel_answers_the_master_stays_who_it_was(known: KnownMaster, clock: Clock) -> None:
    dead = dict.fromkeys((A, B, C), DEAD)
    with pytest.raises(redis.exceptions.ConnectionError, match="no sentinel"):
        answered(known.inquiry(), dead)
    connect(known, {A: SAYS_OLD})
    clock.now += KEPT_S
    assert answered(known.inquiry(), dead)[0].endpoint == OLD


def test_who_named_a_server_in_vain_is_asked_last(known: KnownMaster) -> None:
    answered(known.inquiry(), {A: SAYS_OLD})
    known.failed(OLD)
    assert known.kept() is None
    assert known.order == [B, C, A]
    known.failed(OLD)  # the others of a pool, with the same answer
    assert known.order == [B, C, A]
