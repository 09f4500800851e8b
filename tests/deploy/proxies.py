"""The proxies of docs/how-to/proxies.md, each with its recipe's own file, before two replicas of this machine."""

import os
import signal
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import httpx

from tests.deploy.files import ROOT
from tests.servers import DEADLINE_S, ApiReplica, Process, RealRedis, free_port, need, wait_until

RECIPES = {"nginx": "nginx-tls.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile"}
SILENCE = "5m"
"""How long a recipe lets a connection be silent."""

SETTINGS: dict[str, Any] = {"ping_s": 0.3, "drain_s": 1.5, "retry_ms": 300, "log_level": "debug"}


def recipe(name: str) -> str:
    return (ROOT / "deploy" / RECIPES[name]).read_text()


class Certificate:
    """A certificate for `localhost` that vouches for itself."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.cert, self.key = folder, folder / "cert.pem", folder / "key.pem"
        make = [need("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        files = ["-nodes", "-keyout", str(self.key), "-out", str(self.cert)]
        subprocess.run(
            [*make, *files, "-days", "2", "-subj", "/CN=localhost", "-addext", names], check=True, capture_output=True
        )
        self.both = folder / "both.pem"
        self.both.write_text(self.cert.read_text() + self.key.read_text())

    def context(self) -> ssl.SSLContext:
        """Return how a client trusts it."""
        return ssl.create_default_context(cafile=str(self.cert))


class Proxy(Process):
    """A proxy on ports of 127.0.0.1."""

    def __init__(self, name: str, folder: Path, replicas: list[int], certificate: Certificate, silence: str) -> None:
        program = need(name, name)
        self.folder = folder / name
        self.folder.mkdir()
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        self._certificate = certificate
        text = recipe(name)
        for number, port in enumerate(replicas, 1):
            assert f"replica-{number}.internal:8000" in text
            text = text.replace(f"replica-{number}.internal:8000", f"127.0.0.1:{port}")
        text = text.replace(f" {SILENCE}", f" {silence}")
        self._file = self.folder / RECIPES[name]
        placed: dict[str, Callable[[str], tuple[str, list[str]]]] = {
            "nginx": self._nginx,
            "haproxy": self._haproxy,
            "caddy": self._caddy,
        }
        text, options = placed[name](text)
        self._file.write_text(text)
        home = {"HOME": str(self.folder), "PATH": os.environ["PATH"]}
        super().__init__([program, *options], self.folder / "out.log", home)

    def __enter__(self) -> Self:
        self.start()
        with httpx.Client(verify=self._certificate.context(), timeout=DEADLINE_S) as client:

            def answers() -> bool:
                assert self.popen is not None
                assert self.popen.poll() is None, self.output()
                try:
                    return client.get(f"{self.url}/livez").status_code == 200
                except httpx.TransportError:
                    return False

            wait_until(answers, "the proxy starts")
        return self

    def __exit__(self, *_: object) -> None:
        # The workers of nginx outlive a master that is killed.
        self.stop(signal.SIGTERM if self._file.name == RECIPES["nginx"] else signal.SIGKILL)

    def logged(self) -> str:
        """Return all that it has written into any log."""
        return "".join(path.read_text("utf-8", "replace") for path in self.folder.glob("*.log"))

    def _nginx(self, text: str) -> tuple[str, list[str]]:
        scratch = [f"{kind}_temp_path {self.folder}/{kind};" for kind in ("fastcgi", "uwsgi", "scgi", "proxy")]
        scratch.append(f"client_body_temp_path {self.folder}/client_body;")
        text = replaced(text, "http {\n", "http {\n" + "\n".join(scratch))
        text = replaced(text, "user www-data;\n", "user root;\n" if os.geteuid() == 0 else "")
        text = replaced(text, "/run/nginx.pid", f"{self.folder}/nginx.pid")
        text = text.replace("/var/log/nginx/", f"{self.folder}/")
        text = replaced(text, "listen 80;", f"listen 127.0.0.1:{free_port()};")
        text = replaced(text, "listen 443 ", f"listen 127.0.0.1:{self.port} ")
        text = replaced(text, "/etc/ssl/progress/fullchain.pem", str(self._certificate.cert))
        text = replaced(text, "/etc/ssl/progress/privkey.pem", str(self._certificate.key))
        options = ["-p", str(self.folder), "-e", str(self.folder / "error.log"), "-c", str(self._file)]
        return text, [*options, "-g", "daemon off;"]

    def _haproxy(self, text: str) -> tuple[str, list[str]]:
        text = replaced(text, "bind :80\n", f"bind 127.0.0.1:{free_port()}\n")
        text = replaced(text, "bind :443 ", f"bind 127.0.0.1:{self.port} ")
        text = replaced(text, "/etc/haproxy/progress.pem", str(self._certificate.both))
        return text, ["-db", "-f", str(self._file)]

    def _caddy(self, text: str) -> tuple[str, list[str]]:
        own = f"tls {self._certificate.cert} {self._certificate.key}"
        text = replaced(text, "\nprogress.example.com {\n", f"\n:{self.port} {{\n\tbind 127.0.0.1\n\t{own}\n")
        text = replaced(text, "\n{\n", "\n{\n\tadmin off\n\tauto_https disable_redirects\n")
        return text, ["run", "--adapter", "caddyfile", "--config", str(self._file)]


class Front:
    """A Redis, two replicas on it, and a proxy before them."""

    def __init__(
        self, name: str, folder: Path, certificate: Certificate, *, silence: str = SILENCE, **settings: Any
    ) -> None:
        self.folder, self.certificate = folder, certificate
        self.redis = RealRedis(folder / "redis")
        given = SETTINGS | settings
        self.replicas = [ApiReplica(self.redis.url, folder / f"api-{n}.log", **given) for n in (1, 2)]
        self.proxy = Proxy(name, folder, [replica.port for replica in self.replicas], certificate, silence)
        self.client = httpx.Client(base_url=self.proxy.url, verify=certificate.context(), timeout=60)

    @contextmanager
    def running(self) -> Iterator[Self]:
        with ExitStack() as stack:
            stack.enter_context(self.redis)
            for replica in self.replicas:
                stack.enter_context(replica)
            stack.enter_context(self.proxy)
            stack.enter_context(self.client)
            yield self

    def create(self, operation: str) -> str:
        """Create an operation; return its stream's address."""
        answer = self.client.post("/v1/operations", json={"id": operation, "kind": "import"})
        assert answer.status_code == 201, answer.text
        return f"{self.proxy.url}/v1/operations/{operation}/stream"

    def publish(self, operation: str, type: str, data: dict[str, Any]) -> None:
        answer = self.client.post(f"/v1/operations/{operation}/events", json={"type": type, "data": data})
        assert answer.status_code == 200, answer.text


def replaced(text: str, old: str, new: str) -> str:
    """Return a text with what it holds once replaced."""
    assert text.count(old) == 1, f"{old!r} is not what is written"
    return text.replace(old, new)
