import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_broker.bundle import cursor
from progress_broker.bundle.cursor import LanePosition
from progress_broker.bundle.query import OperationQuery, QueryIndex
from progress_broker.errors import InvalidInput

NUMBERS = st.integers(0, (1 << 64) - 1)
POSITIONS = st.tuples(NUMBERS, NUMBERS).map(lambda it: b"%d-%d" % it)
MARKS = st.sampled_from([(), (True, False), (True, True)]) | st.tuples(st.just(False), st.just(False), POSITIONS)
PLACES = st.dictionaries(
    st.integers(0, 255), st.builds(lambda at, mark: LanePosition(at, *mark), POSITIONS, MARKS), min_size=1
)


@given(PLACES)
def test_a_cursor_is_read_as_it_was_written_and_fits_into_a_header_and_a_query(places: dict[int, LanePosition]) -> None:
    written = cursor.write(places)
    assert cursor.parse(written.decode(), 256) == places
    assert set(written) <= set(b"BLTabcdefghijklmnopqrstuvwxyz0123456789._")


def test_a_cursor_from_before_there_were_marks_is_one() -> None:
    assert cursor.parse("3.k_a.z.1", 16) == {3: LanePosition(b"20-0"), 10: LanePosition(b"35-1")}


@pytest.mark.parametrize(
    "text",
    [
        *("", "_", "1", "1.", "1.2_", "1.2_1.3", "g.1", "1.01", "1.2.3.4", "1.-2", "1.2 ", "A.1", "1795231360001-0"),
        *("1.2BB", "1.2C", "B", "1B.2", "1.B", "1.2.3LB", "1.2b3B4"),
        *("1.2T", "1.T2", "1.2BT3", "1.2T3T4", "1.2T3B", "1.2T3.4.5"),
        *("1." + "z" * 13, "1.2T" + "z" * 13, "1." + "z" * 100_000, "_".join(["1.1"] * 10_000), "\u0661.1"),
    ],
)
def test_what_is_no_cursor_is_rejected(text: str) -> None:
    with pytest.raises(InvalidInput) as rejected:
        cursor.parse(text, 16)
    assert len(rejected.value.detail) < 250


def test_a_new_operation_finds_those_who_ask_for_all_that_it_is_and_only_those() -> None:
    queries: QueryIndex[str] = QueryIndex()
    asked = {
        "ann": OperationQuery(terms=frozenset({b"owner:ann"})),
        "ann's imports": OperationQuery(terms=frozenset({b"owner:ann", b"kind:import"})),
        "bob": OperationQuery(terms=frozenset({b"owner:bob"})),
        "imports in the EU": OperationQuery(terms=frozenset({b"kind:import", b"tag:eu"})),
        "a and b": OperationQuery(("a", "b")),
    }
    for name, query in asked.items():
        queries.add(query, name)
    assert set(queries.followers("a", frozenset({b"owner:ann", b"kind:import"}))) == {"ann", "ann's imports", "a and b"}
    assert set(queries.followers("c", frozenset({b"kind:import", b"tag:eu", b"tag:x"}))) == {"imports in the EU"}
    for name, query in asked.items():
        queries.remove(query, name)
        queries.remove(query, name)
    assert not queries
