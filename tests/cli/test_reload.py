"""A server that reads its settings again: open streams go on, and a file with a fault changes nothing."""

import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from progress_server.auth.api_keys import hash_key
from tests.api.proofs import AUDIENCE, SECRET, bearing, token
from tests.cli.conftest import Shell
from tests.deploy.proxies import Certificate
from tests.servers import ApiReplica, RealRedis, wait_until

KEY = '[[keys]]\nname = "worker"\nsha256 = "{}"\ngrants = [{{actions = ["admin"]}}]\n'


class Files:
    """The files of a server that a test changes."""

    def __init__(self, folder: Path) -> None:
        self.keys, self.cert, self.key = folder / "keys.toml", folder / "cert.pem", folder / "key.pem"
        self.folder, self._certificates = folder, 0
        self.accept("pbk_old")
        self.certify()

    def accept(self, key: str) -> None:
        self.keys.write_text(KEY.format(hash_key(key)))

    def certify(self) -> int:
        """Write another certificate; return its serial number."""
        self._certificates += 1
        made = Certificate(self.folder / str(self._certificates))
        self.cert.write_bytes(made.cert.read_bytes())
        self.key.write_bytes(made.key.read_bytes())
        return x509.load_pem_x509_certificate(self.cert.read_bytes()).serial_number


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
def replica(request: pytest.FixtureRequest, files: Files, tmp_path: Path) -> Iterator[ApiReplica]:
    settings = {"auth": "jwt", "jwt_key": SECRET, "jwt_audience": AUDIENCE, "api_keys": files.keys}
    settings |= {"tls_cert": files.cert, "tls_key": files.key, "processes": request.param}
    with RealRedis(tmp_path / "redis") as redis, ApiReplica(redis.url, tmp_path / "log", **settings) as replica:
        yield replica


def status_of(replica: ApiReplica, key: str) -> set[int]:
    """Return what several new connections are answered: with several processes, some reach each."""
    found = set()
    for _ in range(6):
        with httpx.Client(verify=False) as client:
            found.add(client.get(f"{replica.url}/v1/operations", headers=bearing(key)).status_code)
    return found


def serial_of(replica: ApiReplica) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", replica.port), 60) as plain, context.wrap_socket(plain) as tls:
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


@contextmanager
def watching(replica: ApiReplica) -> Iterator[list[str]]:
    lines: list[str] = []
    alice = bearing(token("alice", "read create publish", exp=4e9))
    with httpx.Client(verify=False, base_url=replica.url, headers=alice) as http:
        assert http.post("/v1/operations", json={"id": "a"}).status_code == 201
        with http.stream("GET", "/v1/operations/a/stream") as answer:
            reading = threading.Thread(target=lambda: lines.extend(answer.iter_lines()))
            reading.start()
            yield lines
            http.post("/v1/operations/a/events", json={"type": "end", "data": {"status": "succeeded"}})
            reading.join()


def test_new_keys_and_a_new_certificate_are_taken_and_a_stream_goes_on(
    replica: ApiReplica, files: Files, tmp_path: Path
) -> None:
    with watching(replica) as lines:
        files.accept("pbk_new")
        serial = files.certify()
        replica.send(signal.SIGHUP)
        wait_until(lambda: status_of(replica, "pbk_new") == {200}, "the new key is accepted")
        assert status_of(replica, "pbk_old") == {401}
        assert serial_of(replica) == serial
        # A file that can't be used changes nothing: neither the keys nor the certificate beside it.
        files.certify()
        files.keys.write_text("[[keys")
        replica.send(signal.SIGHUP)
        wait_until(lambda: "nothing has changed" in replica.output(), "the fault is told")
        assert status_of(replica, "pbk_new") == {200}
        assert serial_of(replica) == serial
        # By a command, at all replicas.
        shell = Shell(tmp_path, redis_url=replica.env["PROGRESS_REDIS_URL"])
        assert "changed nothing" in shell.run("reload").stderr
        files.accept("pbk_newest")
        assert "read keys and certificates again" in shell.says("reload")
        assert status_of(replica, "pbk_newest") == {200}
    assert "event: reconnect" not in lines
    assert "event: end" in lines
