"""Secrets in a query string do not appear in logs."""

import logging
from typing import Any

import httpx
import pytest
from uvicorn.logging import AccessFormatter

from progress_server.observability.logs import Redaction, redacted
from tests.api.test_operations import OPS, create

SECRET = "s3cret.abc-_~%2B"


@pytest.mark.parametrize("name", ["ticket", "token", "access_token", "TICKET", "%74icket", "t%69cke%74"])
@pytest.mark.parametrize(
    ("before", "after"), [("?", ""), ("?from=start&", "&types=end"), ("?", " HTTP/1.1"), ("&", '"')]
)
def test_a_secret_is_replaced(name: str, before: str, after: str) -> None:
    assert redacted(f"/a{before}{name}={SECRET}{after}") == f"/a{before}{name}=***{after}"


@pytest.mark.parametrize("text", ["/a?from=start", "/a?tickets=3", "a ticket is none", "/a?ticket=&from=start"])
def test_all_else_stays(text: str) -> None:
    assert redacted(text) == text


def test_uvicorns_own_formatter_takes_what_is_left() -> None:
    args = ("127.0.0.1:1", "GET", f"/a?ticket={SECRET}", "1.1", 200)
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, '%s - "%s %s HTTP/%s" %d', args, None)
    assert Redaction().filter(record)
    line = AccessFormatter('%(client_addr)s "%(request_line)s" %(status_code)s', use_colors=False).format(record)
    assert line == '127.0.0.1:1 "GET /a?ticket=*** HTTP/1.1" 200 OK'


class TestTheAccessLog:
    @pytest.fixture
    def server_options(self) -> dict[str, Any]:
        return {"log_config": None, "log_level": "info"}

    async def test_has_none(self, http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "uvicorn.access")
        await create(http, id="a")
        await http.get(f"{OPS}/a?ticket={SECRET}&access_token={SECRET}")
        assert "/a?ticket=***&access_token=***" in caplog.text
        assert "s3cret" not in caplog.text
