"""The state that a worker needs of an operation, read from its hash."""

import pytest

from progress_broker.errors import Gone, NotFound
from progress_broker.model.operation import Cancel, Status
from progress_broker.operations.worker_view import FIELDS, WorkerView, read_worker_view


def view(**fields: bytes) -> WorkerView:
    known = {"schema": b"2"} | fields
    return read_worker_view("import-42", [known.get(name) for name in FIELDS])


def test_one_that_nobody_has_begun_is_as_the_defaults_say() -> None:
    assert view(status=b"pending") == WorkerView()


def test_all_that_is_stored_is_read() -> None:
    read = view(
        status=b"cancelling",
        attempt=b"3",
        lease_ms=b"15000",
        progress=b'{"current":7}',
        cancel=b'{"reason":"enough","by":"ann"}',
        created=b"1700000000000",
        idle_ms=b"604800000",
        traceparent=b"00-ab-cd-01",
    )
    cancel = Cancel(reason="enough", by="ann")
    assert read == WorkerView(
        Status.CANCELLING, 3, 15.0, {"current": 7}, cancel, 1_700_000_000_000, 604_800.0, "00-ab-cd-01"
    )


def test_one_that_is_not_there_or_was_deleted_is_told_apart() -> None:
    with pytest.raises(NotFound, match="never created"):
        view()
    with pytest.raises(Gone, match="was deleted"):
        view(gone=b"1", status=b"running")


@pytest.mark.parametrize("fields", [{"status": b"odd"}, {"attempt": b"x"}, {"idle_ms": b"1 2"}, {"schema": b"\xff"}])
def test_what_another_program_wrote_is_no_operation(fields: dict[str, bytes]) -> None:
    with pytest.raises(NotFound, match="another program"):
        view(**{"status": b"running", **fields})


@pytest.mark.parametrize("progress", [b"{", b"[]", b"null"])
def test_a_progress_that_is_none_counts_as_no_progress(progress: bytes) -> None:
    assert view(status=b"running", progress=progress).progress == {}


@pytest.mark.parametrize(
    ("fields", "at_s"),
    [
        ({"status": b"cancelled", "finished": b"1700000000500"}, 1_700_000_000.5),
        ({"status": b"cancelled"}, 0.0),
        ({"status": b"failed", "finished": b"1700000000500"}, None),
    ],
)
def test_when_it_was_cancelled(fields: dict[str, bytes], at_s: float | None) -> None:
    assert view(**fields).cancelled_at_s == at_s
