"""What follows from an error of a node of a Cluster, and what is known after nodes were asked."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis.exceptions as errors

from progress_broker.routing.address import Endpoint, parse_address
from progress_broker.routing.health import NodeAway
from progress_broker.routing.known_nodes import Conclusion, KnownNodes, of_node
from progress_broker.routing.server_kind import WrongKind
from progress_broker.routing.slots import SLOTS, Layout, slot_of

A, B, C = (Endpoint(host, 6379) for host in "abc")
HALF = SLOTS // 2
LEARN, CHECK, NOTHING = Conclusion(learn=True), Conclusion(check=True), Conclusion()


@pytest.fixture
def known() -> KnownNodes:
    known = KnownNodes(parse_address("redis+cluster://a,b"))
    known.slots.take(Layout(((0, HALF - 1, A), (HALF, SLOTS - 1, B)), (C,)), known.slots.version)
    return known


@pytest.mark.parametrize(
    ("error", "conclusion", "is_away"),
    [
        (errors.ConnectionError("refused"), CHECK, False),  # it may have been one idle connection
        (ConnectionResetError("reset"), CHECK, False),
        (errors.BusyLoadingError("LOADING"), CHECK, False),
        (errors.TimeoutError("late"), CHECK, True),
        (TimeoutError(), CHECK, True),
        (errors.ClusterDownError("CLUSTERDOWN the cluster is down"), LEARN, False),
        (errors.ReadOnlyError("You can't write", status_code="READONLY"), LEARN, False),
        (errors.ResponseError("UNBLOCKED force unblock"), LEARN, False),
        (errors.ResponseError("WRONGTYPE Operation"), NOTHING, False),
        (NodeAway("a is away"), NOTHING, False),
        (ValueError("no error of a node"), NOTHING, False),
    ],
)
def test_what_follows_from_an_error(known: KnownNodes, error: Exception, conclusion: Conclusion, is_away: bool) -> None:
    assert known.heard(A, error) == conclusion
    assert (known.away(A) is not None) == is_away
    assert known.well == ([B] if is_away else [A, B])
    if conclusion.check:
        assert known.heard(A, error) == NOTHING, "somebody checks it by now"


def test_a_redirection_is_followed_at_once(known: KnownNodes) -> None:
    slot = slot_of("key")
    owner = known.find("key")
    other = B if owner == A else A
    assert owner is not None
    assert known.heard(owner, errors.MovedError(f"{slot} {other.host}:{other.port}")) == LEARN
    assert known.owner("key", None) == other
    known.health(other).failed("refused")
    assert known.find("key") is None
    with pytest.raises(NodeAway, match=f"{other} is away: refused"):
        known.owner("key", None)


def asked(known: KnownNodes, replies: Iterator[Any]) -> tuple[list[Endpoint], Exception | None]:
    """Ask as the owner of connections does; return who was asked, and what came of it."""
    discovery, seen, reply = known.discovery(), list[Endpoint](), None
    while True:
        try:
            seen.append(discovery.send(reply))
        except StopIteration as over:
            return seen, over.value
        reply = next(replies)


def test_nodes_that_are_well_are_asked_first_and_what_one_knows_is_taken(known: KnownNodes) -> None:
    known.heard(A, TimeoutError())
    everything = [[0, SLOTS - 1, [b"c", 6379]]]
    assert asked(known, iter([OSError("refused"), everything])) == ([B, C], None)
    assert known.slots.masters == (C,)
    known.leave(A)
    assert known.away(A) is None


def test_if_nobody_knows_the_first_error_is_returned_and_the_map_stays(known: KnownNodes) -> None:
    seen, error = asked(known, iter([TimeoutError(), OSError("refused"), errors.ResponseError("ERR")]))
    assert seen == [A, B, C]
    assert isinstance(error, errors.ConnectionError)
    assert str(error) == "no answer in time"
    assert known.slots.masters == (A, B)
    empty = KnownNodes(parse_address("redis+cluster://a"))
    _, error = asked(empty, iter([errors.AuthenticationError("wrong password")]))
    with pytest.raises(errors.AuthenticationError):
        empty.owner("key", error)
    with pytest.raises(NodeAway, match="no node serves slot"):
        empty.owner("key", None)


def test_what_callers_get_names_the_node_unless_it_is_wrong_for_good() -> None:
    for error in (errors.ConnectionError("refused"), errors.TimeoutError(), OSError("refused")):
        assert isinstance(of_node(A, error), NodeAway)
        assert str(of_node(A, error)).startswith("a:6379: ")
    for lasting in (errors.AuthenticationError("no"), WrongKind("no"), errors.ResponseError("ERR"), NodeAway("b")):
        assert of_node(A, lasting) is lasting
