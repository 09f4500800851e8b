"""Pairs of names and texts become filters, and filters the same pairs again. What is wrong is told by its field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_broker.errors import InvalidInput
from progress_broker.model.operation import TERMINAL, Status
from progress_broker.queries.fields import FIELDS, read_filters, write_filters
from progress_broker.queries.filters import UNFINISHED, Filters, Span
from progress_broker.queries.times import EARLIEST_MS, read_time

NOW = 1_796_047_500_000
"""2026-11-30T14:05:00Z"""
MINUTE_MS = 60_000

printable = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=20)
ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,20}", fullmatch=True)
times = st.none() | st.integers(EARLIEST_MS, NOW)
spans = st.builds(Span, times, times).filter(lambda span: None in span or span <= span[::-1])


def several(values: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(values, max_size=3).map(tuple)


filters = st.builds(
    Filters,
    ids=several(ids),
    statuses=st.frozensets(st.sampled_from(Status)),
    kinds=several(printable),
    owners=several(printable),
    tags=several(printable),
    metadata=several(st.tuples(st.from_regex(r"[A-Za-z0-9_.-]{1,9}", fullmatch=True), printable).map("=".join)),
    parent=st.none() | ids,
    roots=st.just(False),
    id_prefix=st.just("") | ids,
    text=st.just("") | printable,
    worker=st.none() | printable,
    error=st.none() | printable,
    changed=spans,
    created=spans,
    ended=spans,
)


@given(filters)
def test_what_is_written_is_read_as_the_same_filters(chosen: Filters) -> None:
    assert read_filters(write_filters(chosen), NOW) == chosen


def test_roots_are_written_and_read() -> None:
    assert list(write_filters(Filters(roots=True))) == [("roots", "true")]
    assert read_filters([("roots", "true")], NOW) == Filters(roots=True)
    assert read_filters([("roots", "false")], NOW) == Filters()


def test_each_example_is_valid_and_chooses_something() -> None:
    for field in FIELDS.values():
        assert read_filters([(field.name, field.example)], NOW) != Filters(), field.name


def test_several_statuses_are_one_text_or_several() -> None:
    both = Filters(statuses=frozenset({Status.FAILED, Status.CANCELLED}))
    assert read_filters([("status", "failed,cancelled")], NOW) == both
    assert read_filters([("status", "failed"), ("status", "cancelled")], NOW) == both


def test_a_key_of_metadata_ends_at_its_first_sign() -> None:
    for text, pair in (("a:b=c", "a=b=c"), ("a=b:c", "a=b:c"), ("a:b:c", "a=b:c")):
        assert read_filters([("metadata", text)], NOW) == Filters(metadata=(pair,))


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1m", NOW - MINUTE_MS),
        ("1.5s", NOW - 1_500),
        ("2026-11-30T14:04:00Z", NOW - MINUTE_MS),
        ("2026-11-30T15:04:00.250+01:00", NOW - MINUTE_MS + 250),
        (str(NOW), NOW),
        ("999999999d", EARLIEST_MS),
    ],
)
def test_a_time_is_so_long_ago_or_a_date_or_a_number(text: str, ms: int) -> None:
    assert read_time(text, NOW) == ms
    assert read_filters([("created_since", text)], NOW) == Filters(created=Span(ms))


def test_idle_are_those_that_have_not_ended_and_not_changed_for_so_long() -> None:
    until = NOW - 10 * MINUTE_MS
    assert read_filters([("idle", "10m")], NOW) == Filters(statuses=UNFINISHED, changed=Span(None, until))
    some = read_filters([("idle", "10m"), ("status", "running,failed"), ("until", "1h")], NOW)
    assert some == Filters(statuses=frozenset({Status.RUNNING}), changed=Span(None, NOW - 60 * MINUTE_MS))
    assert not UNFINISHED & TERMINAL


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("colour=red", "colour"),
        ("kind=", "kind"),
        ("kind=a\nb", "kind"),
        ("status=lost", "status"),
        ("status=failed,", "status"),
        ("parent=a b", "parent"),
        ("id=", "id"),
        ("metadata=customer", "metadata"),
        ("metadata=a b:1", "metadata"),
        ("metadata=a:", "metadata"),
        ("roots=perhaps", "roots"),
        ("since=yesterday", "since"),
        ("since=2026-11-30T14:05:00", "since"),
        ("since=20261130", "since"),
        ("since=1796047500", "since"),
        ("until=1y", "until"),
        ("idle=0s", "idle"),
        ("parent=a&parent=b", "parent"),
        ("roots=true&parent=a", "roots"),
        ("ended_since=1h&ended_until=2h", "ended_since"),
        ("idle=1h&status=failed", "idle"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(query: str, field: str) -> None:
    pairs = [(name, value) for name, _, value in (pair.partition("=") for pair in query.split("&"))]
    with pytest.raises(InvalidInput) as told:
        read_filters(pairs, NOW)
    assert told.value.field == field
    assert field in told.value.detail
