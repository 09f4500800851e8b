"""Faults before servers: each is found through the URL, with what mends it."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from progress_broker.diagnosis.finding import Check, Finding, Level
from progress_cli.doctor.url import examine_url
from tests.cli.conftest import Shell
from tests.conftest import make_settings
from tests.doctor.edge import CertificateOf, Nginx
from tests.doctor.found import assert_found, bad
from tests.servers import DEADLINE_S, ApiReplica, RealRedis, free_port

HELD_S = 1
"""How long an event is waited for that does not come."""
ABROAD = "0.0.0.0"
"""This machine, by an address that is not one of loopback."""


@pytest.fixture(scope="module")
def server(good_redis: RealRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiReplica]:
    """A server that trusts whoever is before it."""
    log = tmp_path_factory.mktemp("server") / "api.log"
    with ApiReplica(good_redis.url, log, trusted_proxies="0.0.0.0/0", allowed_hosts="*") as server:
        yield server


@pytest.fixture(scope="module")
def nginx(server: ApiReplica, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    folder = tmp_path_factory.mktemp("nginx")
    days = {"http2": 60, "http1": 3, "expired": -1}
    with Nginx(folder, server.port, {name: CertificateOf(folder, it) for name, it in days.items()}) as nginx:
        trusted = folder / "trusted.pem"
        trusted.write_bytes(b"".join((folder / f"cert-{it}.pem").read_bytes() for it in days.values()))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(trusted))
            yield nginx


async def examine(url: str, arrival_s: float = DEADLINE_S) -> list[Finding]:
    examined = await examine_url(make_settings(), url, patience_s=DEADLINE_S, arrival_s=arrival_s)
    assert examined.reached
    return examined.findings


async def test_a_server_behind_a_proxy_as_it_should_be(server: ApiReplica, nginx: Nginx) -> None:
    found = await examine(nginx.url("http2"))
    assert bad(found) == set()
    assert {it.check for it in found} >= {Check.STREAM, Check.COMPRESSION, Check.FORWARDED, Check.HTTP2, Check.METRICS}
    assert assert_found(found, Check.STREAM, Level.GOOD, "").figures["arrival_s"] > 0
    assert "gzip" in assert_found(found, Check.COMPRESSION, Level.GOOD, "").said
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{server.url}/v1/operations?kind=doctor")).json()["operations"] == []


async def test_a_server_without_a_proxy(server: ApiReplica) -> None:
    assert bad(await examine(server.url)) == {(Check.FORWARDED, Level.UNCHECKED)}  # as it is on this machine


async def test_proxies_that_hold_events_back(nginx: Nginx) -> None:
    buffers, packs = await asyncio.gather(*(examine(nginx.url(name), HELD_S) for name in ("buffering", "packing")))
    for found, check, fix in (
        (buffers, Check.STREAM, "proxy_buffering off"),
        (packs, Check.COMPRESSION, "no-transform"),
    ):
        assert "only when the stream ends" in assert_found(found, check, Level.FAULT, fix).said


async def test_a_proxy_that_answers_in_the_servers_place(nginx: Nginx) -> None:
    found = await examine(nginx.url("errors"))
    assert_found(found, Check.ERRORS, Level.FAULT, "error_page")
    assert_found(found, Check.SERVER, Level.GOOD, "")
    found = await examine(nginx.url("fallback"))
    assert_found(found, Check.ERRORS, Level.FAULT, "return 200")
    assert_found(found, Check.SERVER, Level.FAULT, "start the servers behind it")


async def test_a_proxy_that_is_open(nginx: Nginx) -> None:
    found = await examine(nginx.url("open", ABROAD))
    assert_found(found, Check.METRICS, Level.WARNING, "location = /metrics")
    assert_found(found, Check.FORWARDED, Level.FAULT, "PROGRESS_TRUSTED_PROXIES")
    assert_found(found, Check.HTTP2, Level.WARNING, "TLS")


async def test_tls(nginx: Nginx) -> None:
    found = await examine(nginx.url("http1"))
    assert_found(found, Check.HTTP2, Level.WARNING, "listen 443 ssl http2")
    assert "in 3 days" in assert_found(found, Check.CERTIFICATE, Level.WARNING, "renew").said
    examined = await examine_url(make_settings(), nginx.url("expired"), patience_s=DEADLINE_S)
    assert "has expired" in assert_found(examined.findings, Check.CERTIFICATE, Level.FAULT, "renew").said
    assert not examined.reached


async def test_a_server_that_asks_for_credentials(good_redis: RealRedis, folder: Path) -> None:
    auth = {"auth": "jwt", "jwt_key": "0123456789abcdef" * 2}
    with ApiReplica(good_redis.url, folder / "api.log", **auth) as server:
        found = await examine(server.url)
    assert "PROGRESS_TOKEN" in assert_found(found, Check.STREAM, Level.UNCHECKED, "").said
    assert_found(found, Check.METRICS, Level.GOOD, "")
    assert_found(found, Check.ERRORS, Level.GOOD, "")


async def test_nothing_listens() -> None:
    examined = await examine_url(make_settings(), f"http://127.0.0.1:{free_port()}")
    assert not examined.reached
    assert "connection refused" in assert_found(examined.findings, Check.SERVER, Level.FAULT, "start the server").said


def test_redis_and_several_urls_in_one_report(
    good_redis: RealRedis, server: ApiReplica, nginx: Nginx, folder: Path
) -> None:
    shell = Shell(folder, redis_url=good_redis.url, url="http://127.0.0.1:1")
    both = ("--url", server.url, "--url", nginx.url("errors"))
    done = shell.run("doctor", "--timeout", "60", *both, "-o", "json", "--only", "errors", "--only", "redis")
    told = [(it["check"], it["level"], it["at"]) for it in json.loads(done.stdout)]
    redis = ("redis", "good", str(good_redis.socket))
    assert told == [("errors", "fault", nginx.url("errors")), redis, ("errors", "good", server.url)]
    assert done.returncode == 2
