"""What the audit says of who changed what."""

import logging

import pytest

from progress_broker.access.audit import Audit, AuditEntry


async def test_an_entry_is_a_line_with_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    entry = AuditEntry("alice", "http", "cancel", "import-42", "forbidden", address="192.0.2.1", request="r-1")
    with caplog.at_level(logging.INFO, "progress_broker.audit"):
        await Audit().record(entry)
        await Audit().record(AuditEntry("", "signal", "reload", ""))
    first, second = caplog.records
    assert first.getMessage() == "cancel by alice: import-42 forbidden"
    assert {name: getattr(first, name) for name in ("who", "via", "address", "request", "result")} == {
        "who": "alice",
        "via": "http",
        "address": "192.0.2.1",
        "request": "r-1",
        "result": "forbidden",
    }
    assert second.getMessage() == "reload by somebody: everything ok"
    assert not hasattr(second, "address"), "what is not known is left out"
