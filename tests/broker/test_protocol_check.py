"""Addresses with TLS for a server without TLS, or the other way round, or of a server that is not a Redis."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from progress_broker.errors import SetupError, StorageUnavailable
from progress_broker.nodes.protocol_check import mismatch
from progress_broker.operations.store import Store
from progress_broker.routing.address import parse_address
from progress_workers import Operation
from tests.conftest import make_settings
from tests.deploy.proxies import Certificate
from tests.servers import RealRedis, free_port
from tests.workers.harness import Broker


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[int]:
    port = free_port()
    with RealRedis(tmp_path / "plain", port=port):
        yield port


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[int]:
    port, certificate = free_port(), Certificate(tmp_path / "tls")
    files = ("--tls-cert-file", str(certificate.cert), "--tls-key-file", str(certificate.key))
    trusted = ("--tls-ca-cert-file", str(certificate.cert), "--tls-port", str(port))
    with RealRedis(tmp_path / "redis", options=(*files, *trusted)):  # it also requires client certificates
        yield port


@pytest.fixture
def web() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize(
    ("scheme", "server", "said"),
    [
        ("rediss", "plain", "does not use TLS: write redis:// instead of rediss://"),
        ("redis", "tls", "uses TLS: write rediss:// instead of redis://"),
        ("redis", "web", "is a web server, not a Redis"),
        ("rediss", "web", "is a web server, not a Redis"),
    ],
)
def test_an_address_that_can_never_be_right_is_told_at_once(
    request: pytest.FixtureRequest, scheme: str, server: str, said: str
) -> None:
    url = f"{scheme}://user:s3cret@127.0.0.1:{request.getfixturevalue(server)}/0"
    settings = make_settings(redis_url=url, redis_timeout_s=1000)  # which nothing waits for
    with pytest.raises(SetupError, match=said) as rejected:
        asyncio.run(Store.open(settings))
    assert "s3cret" not in rejected.value.detail
    with pytest.raises(StorageUnavailable, match=said):
        Operation.start("import", settings=Broker(url, redis_timeout_s=1000).settings, required=True)


@pytest.mark.parametrize(("scheme", "server"), [("redis", "plain"), ("rediss", "tls")])
def test_nothing_is_wrong_with_an_address_that_is_right(
    request: pytest.FixtureRequest, scheme: str, server: str
) -> None:
    assert mismatch(parse_address(f"{scheme}://127.0.0.1:{request.getfixturevalue(server)}")) is None


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_where_nobody_answers_or_nobody_is_the_client_s_word_is_kept(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address in (f"127.0.0.1:{silent.getsockname()[1]}", "127.0.0.1:1", "no-such-host.invalid"):
            assert mismatch(parse_address(f"{scheme}://{address}")) is None
    with pytest.raises(SetupError, match=r"Redis can't be reached: .*no-such-host"):
        asyncio.run(Store.open(make_settings(redis_url=f"{scheme}://no-such-host.invalid")))
