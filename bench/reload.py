"""A reload (SIGHUP) of a server with 5,000 open streams over TLS, whose keys and certificate have changed. Exits with 1
if a stream was cut or an event was missed, if new connections do not have the new certificate, or if the old key is
still accepted, or the new one is not."""

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import httpx
from rich.table import Table

from bench import contenders
from bench.contenders import Server
from bench.dialing import raise_file_limit
from bench.harness import Spread, note, options, read_options, report
from bench.processes import Child, Cores, PrivateRedis, pin, serve
from progress_server.auth.api_keys import hash_key

CLIENTS, QUICK = 5_000, 50
OLD, NEW = "pbk_old", "pbk_new"
BEFORE, AFTER = 5, 20
"""Events before and after the reload."""
BEGUN = 1
AT_ONCE = 50
"""How many clients connect at a time."""
WITHIN_S = 120.0
MIB = 1 << 20
OPERATION = "operation-0"
KEYS = '[[keys]]\nname = "bench"\nsha256 = "{}"\ngrants = [{{actions = ["admin"]}}]\n'


class Crowd:
    """Clients over TLS. They read while they are asked something; meanwhile the kernel keeps what comes."""

    def __init__(self, port: int) -> None:
        self._port, self._loop = port, asyncio.new_event_loop()
        self._context = _trusting_all()
        self._streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def answer(self, question: str, number: int) -> int:
        """Open a `number` of streams; or `read` until each has the event of a number, and return how many were cut."""
        return self._loop.run_until_complete(self._open(number) if question == "open" else self._read(number))

    async def _open(self, clients: int) -> int:
        raise_file_limit(clients)
        room = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with room:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._context)
                lines = [f"GET /v1/operations/{OPERATION}/stream HTTP/1.1", "Host: localhost"]
                lines += ["Accept: text/event-stream", f"Authorization: Bearer {OLD}", "", ""]
                writer.write("\r\n".join(lines).encode())
                await reader.readuntil(b"event: snapshot")
                self._streams.append((reader, writer))

        await asyncio.gather(*(one() for _ in range(clients)))
        return len(self._streams)

    async def _read(self, number: int) -> int:
        async def one(reader: asyncio.StreamReader) -> bool:
            try:
                await reader.readuntil(f'"n":{number},'.encode())
            except (asyncio.IncompleteReadError, OSError):
                return True
            return False

        async with asyncio.timeout(WITHIN_S):
            return sum(await asyncio.gather(*(one(reader) for reader, _ in self._streams)))


def crowd(pipe: Connection, port: int) -> None:
    """The process of the clients."""
    serve(pipe, Crowd(port).answer)


class Files:
    """The keys and the certificate of the server."""

    def __init__(self, folder: Path) -> None:
        self.keys, self.cert, self.key = folder / "keys.toml", folder / "cert.pem", folder / "key.pem"
        self.accept(OLD)
        self.certify()

    def accept(self, key: str) -> None:
        """Let the server accept this key, and no other."""
        self.keys.write_text(KEYS.format(hash_key(key)))

    def certify(self) -> None:
        """Write another key and certificate."""
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-days", "2", "-subj", "/CN=localhost", "-keyout", str(self.key), "-out", str(self.cert)]
        subprocess.run(command, check=True, capture_output=True)

    def settings(self) -> dict[str, str]:
        """Return the variables of the server."""
        named = {"API_KEYS": self.keys, "TLS_CERT": self.cert, "TLS_KEY": self.key}
        limits = {"HANDSHAKES_PER_S": "100000", "MAX_STREAMS_PER_ADDRESS": "0", "MAX_STREAMS_PER_PRINCIPAL": "0"}
        auth = {"AUTH": "jwt", "JWT_KEY": "a secret of this benchmark, of 32 bytes and more", "REQUESTS_PER_S": "0"}
        return {f"PROGRESS_{name}": str(value) for name, value in (named | limits | auth).items()}


class Reload(NamedTuple):
    taken_s: float
    """Seconds from the signal until a new connection was answered by the new settings."""
    cpu_s: float
    """CPU of the server for it, with what it takes to ask it."""
    memory_bytes: int
    """The server's memory with all streams open, before."""
    more_bytes: int
    """How much more it was at most until the new settings had answered."""
    cut: int
    wrong: str


def reload(redis: PrivateRedis, cores: Cores, clients: int) -> Reload:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        files = Files(Path(folder))
        with (
            contenders.start("broker", redis, cores.measured, files.settings()) as server,
            Child(crowd, server.port, cores=cores.others) as those,
        ):
            url = f"https://127.0.0.1:{server.port}/v1/operations"
            _ask(url, OLD, "POST", "", {"id": OPERATION})
            those.ask("open", clients, within_s=WITHIN_S)
            _publish(url, OLD, BEFORE)
            those.ask("read", BEGUN + BEFORE, within_s=WITHIN_S)
            before = _certificate(server)
            files.accept(NEW)
            files.certify()
            memory_bytes = server.rss_bytes()
            server.forget_peak()
            cpu_s, began = server.cpu_s(), time.monotonic()
            os.kill(server.pid, signal.SIGHUP)
            while _ask(url, NEW, "GET", f"/{OPERATION}") != 200:
                if time.monotonic() - began > WITHIN_S:
                    raise SystemExit("the new key was not accepted")
            taken_s, cpu_s = time.monotonic() - began, server.cpu_s() - cpu_s
            more_bytes = server.peak_bytes() - memory_bytes
            wrong = []
            if _ask(url, OLD, "GET", f"/{OPERATION}") != 401:
                wrong.append("the old key is still accepted")
            if _certificate(server) in (before, b""):
                wrong.append("new connections have the old certificate")
            _publish(url, NEW, AFTER)
            cut = those.ask("read", BEGUN + BEFORE + AFTER, within_s=2 * WITHIN_S)
    return Reload(taken_s, cpu_s, memory_bytes, more_bytes, cut, "; ".join(wrong))


def _publish(url: str, key: str, events: int) -> None:
    for _ in range(events):
        _ask(url, key, "POST", f"/{OPERATION}/events", {"type": "log", "data": {"message": "m"}})


def _ask(url: str, key: str, method: str, path: str, body: object = None) -> int:
    """Return the status of a request over a connection of its own."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    content = None if body is None else json.dumps(body)
    with httpx.Client(verify=_trusting_all(), timeout=WITHIN_S) as http:
        return http.request(method, url + path, content=content, headers=headers).status_code


def _certificate(server: Server) -> bytes:
    """Return the certificate that a new connection gets."""
    with (
        socket.create_connection(("127.0.0.1", server.port), WITHIN_S) as plain,
        _trusting_all().wrap_socket(plain) as tls,
    ):
        return tls.getpeercert(binary_form=True) or b""


def _trusting_all() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def main() -> int:
    parser = options(__doc__, rounds=3, seconds=1)
    parser.add_argument("--clients", type=int, default=None, help=f"number of clients ({CLIENTS:,})")
    given = read_options(parser)
    clients = given.clients or (QUICK if given.quick else CLIENTS)
    cores = Cores.split()
    pin(cores.others)
    found: list[Reload] = []
    with PrivateRedis(cores.others) as redis:
        for _ in range(given.rounds):
            found.append(one := reload(redis, cores, clients))
            note(f"taken in {1000 * one.taken_s:.0f} ms, {one.cut:,} of {clients:,} streams cut {one.wrong}")
        figures = {
            "taken_ms": Spread.of([1000 * one.taken_s for one in found]),
            "cpu_ms": Spread.of([1000 * one.cpu_s for one in found]),
            "memory_mib": Spread.of([one.memory_bytes / MIB for one in found]),
            "more_mib": Spread.of([one.more_bytes / MIB for one in found]),
        }
        cut, wrong = sum(one.cut for one in found), "; ".join(one.wrong for one in found if one.wrong)
        table = Table(title=f"a reload with {clients:,} open streams over TLS")
        for title in ("taken after, ms", "CPU, ms", "memory, MiB", "more for it, MiB", "streams cut", "wrong"):
            table.add_column(title, justify="right")
        cells = [spread.text(1 if name == "more_mib" else 0) for name, spread in figures.items()]
        table.add_row(*cells, f"{cut:,}", wrong or "nothing")
        results = {name: spread.json() for name, spread in figures.items()}
        report("reload", redis, given, table, {"clients": clients, "results": results, "cut": cut, "wrong": wrong})
    return 1 if cut or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
