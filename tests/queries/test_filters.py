"""What each filter lets through, and which indexes list that."""

from datetime import UTC, datetime
from typing import Any

from progress_broker.model.grants import EVERYTHING, Action, Grants, granted
from progress_broker.model.operation import Operation, Status
from progress_broker.queries.filters import Filters, Span

AT = datetime(2026, 11, 30, 14, 5, tzinfo=UTC)
MS = 1_796_047_500_000
ENDED = datetime(2026, 11, 30, 15, 5, tzinfo=UTC)
HOUR_MS = 3_600_000


def operation(**changes: Any) -> Operation:
    fields: dict[str, Any] = dict.fromkeys(Operation.model_fields) | {
        "id": "import-42",
        "kind": "import",
        "title": "Customers of Köln",
        "owner": "alice",
        "tags": ["eu", "nightly"],
        "metadata": {"customer": 42},
        "parent": "p",
        "weight": 1,
        "status": Status.FAILED,
        "done": True,
        "attempt": 1,
        "worker": "w1",
        "cancel_requested": False,
        "error": {"type": "timeout", "message": "The bank did not answer"},
        "created_at": AT,
        "updated_at": ENDED,
        "finished_at": ENDED,
        "position": "1-0",
        "events": 3,
    }
    return Operation.model_validate(fields | changes)


MATCHING = [
    Filters(),
    Filters(ids=("x", "import-42")),
    Filters(statuses=frozenset({Status.FAILED, Status.CANCELLED})),
    Filters(kinds=("export", "import")),
    Filters(owners=("bob", "alice")),
    Filters(tags=("nightly", "eu")),
    Filters(metadata=("customer=42",)),
    Filters(parent="p"),
    Filters(id_prefix="import-"),
    Filters(text="IMPORT-4"),
    Filters(text="KÖLN"),
    Filters(worker="w1"),
    Filters(error="timeout"),
    Filters(error="BANK did"),
    Filters(changed=Span(MS + HOUR_MS, MS + HOUR_MS + 1)),
    Filters(created=Span(MS)),
    Filters(created=Span(None, MS + 1)),
    Filters(ended=Span(MS + HOUR_MS)),
    Filters(grants=Grants((granted(["read", "cancel"], kinds=["import"]),)), action=Action.CANCEL),
]
OTHERS = [
    Filters(ids=("x",)),
    Filters(statuses=frozenset({Status.SUCCEEDED})),
    Filters(kinds=("export",)),
    Filters(owners=("bob",)),
    Filters(tags=("eu", "us")),
    Filters(metadata=("customer=42", "customer=43")),
    Filters(parent="q"),
    Filters(roots=True),
    Filters(id_prefix="mport"),
    Filters(text="Bonn"),
    Filters(worker="w"),
    Filters(error="time"),  # no type, and not in the message
    Filters(changed=Span(MS + HOUR_MS + 1)),
    Filters(created=Span(None, MS)),
    Filters(ended=Span(None, MS + HOUR_MS)),
    Filters(grants=Grants((granted(["read"], kinds=["import"]),)), action=Action.CANCEL),
]


def test_a_filter_lets_through_what_it_names_and_leaves_out_all_else() -> None:
    for filters in MATCHING:
        assert filters.match(operation()), filters
    for filters in OTHERS:
        assert not filters.match(operation()), filters


def test_what_an_operation_does_not_have_is_in_no_span_and_no_text() -> None:
    running = operation(title=None, owner=None, parent=None, error=None, worker=None, finished_at=None)
    for filters in (
        Filters(ended=Span(0)),
        Filters(text="Köln"),
        Filters(owners=("alice",)),
        Filters(error="bank"),
        Filters(worker="w1"),
    ):
        assert not filters.match(running)
    assert Filters(roots=True).match(running)


def test_each_group_lists_what_matches() -> None:
    listed = {
        ("id", "import-42"),
        ("parent", "p"),
        ("owner", "alice"),
        ("kind", "import"),
        ("status", "failed"),
        ("tag", "eu"),
        ("tag", "nightly"),
        ("metadata", "customer=42"),
    }
    for filters in MATCHING:
        assert all(listed.intersection(group) for group in filters.groups()), filters


def test_an_end_is_looked_up_by_the_statuses_that_have_one() -> None:
    ended = Filters(ended=Span(MS))
    assert ended.groups() == [[("status", status) for status in ("cancelled", "failed", "succeeded")]]
    both = Filters(ended=Span(MS), statuses=frozenset({Status.FAILED, Status.RUNNING}))
    assert both.groups() == [[("status", "failed")]]
    neither = Filters(ended=Span(MS), statuses=frozenset({Status.PENDING, Status.RUNNING}))
    assert neither.groups() == [[]]


def test_a_caller_that_may_read_everything_needs_no_check() -> None:
    some = Grants((granted(["read"], kinds=["import"]),))
    assert Filters().of_caller(EVERYTHING).grants is None
    assert Filters().of_caller(some).grants == some
    everywhere = Grants((granted(["read"]),))
    assert Filters(action=Action.CANCEL).of_caller(everywhere).grants == everywhere
