import csv
import gzip
import io
import json
import os
import shutil
import socket
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import IO, Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from progress_workers import Operation
from progress_workers._passed import MAX_RANGES, PassedBytes
from progress_workers.files import CountedFile, reading, size, writing
from progress_workers.testing import Recording
from tests.servers import DEADLINE_S

LINE = b"x" * 999 + b"\n"
DATA = 100 * LINE
SIZE = len(DATA)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(DATA)
    return path


def counted(recorded: Recording) -> tuple[float | None, float | None]:
    return recorded.progress["current"], recorded.progress["total"]


def _by_read(file: IO[bytes]) -> bytes:
    return b"".join(iter(lambda: file.read(4096), b""))


def _by_read1(file: Any) -> bytes:
    return b"".join(iter(lambda: file.read1(), b""))


def _by_readinto(file: Any) -> bytes:
    buffer, found = bytearray(4096), b""
    while taken := file.readinto(buffer):
        found += buffer[:taken]
    return found


ways: dict[str, Callable[[IO[bytes]], bytes]] = {
    "read": _by_read,
    "read all": lambda file: file.read(),
    "read None": lambda file: file.read(None),  # type: ignore[arg-type]
    "read1": _by_read1,
    "readinto": _by_readinto,
    "iteration": lambda file: b"".join(file),
    "readline": lambda file: b"".join(iter(file.readline, b"")),
    "readlines": lambda file: b"".join(file.readlines()),
}


@pytest.mark.parametrize("way", list(ways))
def test_what_is_read_counts_towards_the_file_s_size(recorded: Recording, op: Operation, path: Path, way: str) -> None:
    with reading(path.open("rb")) as file:
        assert ways[way](file) == DATA
    assert counted(recorded) == (SIZE, SIZE)
    assert file.closed


@pytest.mark.parametrize("way", ["write", "writelines"])
def test_what_is_written_counts(recorded: Recording, op: Operation, path: Path, way: str) -> None:
    lines = [b"one\n", bytearray(b"two\n"), memoryview(b"three\n")]
    with writing(path.open("wb"), total=14) as file:
        if way == "write":
            assert [file.write(line) for line in lines] == [4, 4, 6]
        else:
            file.writelines(lines)
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    assert counted(recorded) == (14, 14)


def test_without_a_total_what_is_written_is_only_counted(recorded: Recording, op: Operation, path: Path) -> None:
    with writing(path.open("wb")) as file:
        file.write(b"12345")
    assert counted(recorded) == (5, None)


def test_a_file_s_copy_is_counted_at_either_end(recorded: Recording, op: Operation, path: Path) -> None:
    read, written = op.stage("read"), op.stage("write")
    with path.open("rb") as source, path.with_name("copy").open("wb") as target:
        shutil.copyfileobj(reading(source, read), writing(target, written, total=SIZE))
        assert not source.closed  # the wrapper must not close it
    assert [(stage["current"], stage["total"]) for stage in recorded.progress["stages"]] == [(SIZE, SIZE)] * 2


def test_files_read_one_after_the_other_add_up(recorded: Recording, op: Operation, path: Path) -> None:
    for _ in range(3):
        with reading(path.open("rb")) as file:
            file.read()
    assert counted(recorded) == (3 * SIZE, 3 * SIZE)


def test_a_total_that_was_given_stays(recorded: Recording, path: Path) -> None:
    with Operation.start("import", total=10 * SIZE), reading(path.open("rb")) as file:
        file.read()
    assert counted(recorded) == (SIZE, 10 * SIZE)


def test_what_passes_again_counts_once(recorded: Recording, op: Operation, path: Path) -> None:
    with reading(path.open("rb")) as file:
        file.read(60_000)
        assert file.seek(0) == 0
        file.read(60_000)
        assert counted(recorded) == (60_000, SIZE)
        assert file.seek(-10, os.SEEK_END) == SIZE - 10
        file.read()
        assert counted(recorded) == (60_010, SIZE)
        file.seek(50_000)
        file.read()
        assert file.tell() == SIZE
    assert counted(recorded) == (SIZE, SIZE)


def test_what_lies_before_the_position_is_skipped(recorded: Recording, op: Operation, path: Path) -> None:
    with path.open("rb") as plain:
        plain.seek(40_000)
        file = reading(plain)
        assert counted(recorded) == (40_000, SIZE)
        assert recorded.progress["rate"] is None
        file.seek(0)
        file.read()
    assert counted(recorded) == (SIZE, SIZE)


def test_a_download_that_goes_on_counts_what_is_there(recorded: Recording, op: Operation, path: Path) -> None:
    with writing(path.open("ab"), total=SIZE + 10) as file:
        assert counted(recorded) == (SIZE, SIZE + 10)
        file.seek(0)  # has no effect on a file in append mode
        file.write(b"0123456789")
    assert counted(recorded) == (SIZE + 10, SIZE + 10)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=30))
def test_each_byte_counts_once_in_whatever_order(spans: list[tuple[int, int]]) -> None:
    passed, seen = PassedBytes(), set[int]()
    for start, length in spans:
        some = set(range(start, start + length))
        assert passed.add(start, start + length) == len(some - seen)
        seen |= some


def test_what_is_remembered_of_a_file_is_bounded() -> None:
    passed = PassedBytes()
    for start in range(0, 10 * MAX_RANGES, 2):
        assert passed.add(start, start + 1) == 1
    assert len(passed._starts) == MAX_RANGES


def _pipe(path: Path) -> IO[bytes]:
    read, write = os.pipe()
    os.write(write, b"12345")
    os.close(write)
    return os.fdopen(read, "rb")


def _socket(path: Path) -> IO[bytes]:
    one, other = socket.socketpair()
    other.sendall(b"12345")
    other.close()
    with one:
        return one.makefile("rb")


def _named(path: Path) -> Any:
    file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - the test closes it
    file.write(b"12345")
    file.seek(0)
    return file


def _packed(path: Path) -> IO[bytes]:
    path.write_bytes(gzip.compress(b"12345"))
    return gzip.open(path, "rb")  # type: ignore[return-value]


kinds: list[tuple[Callable[[Path], IO[bytes]], int | None]] = [
    (lambda path: io.BytesIO(b"12345"), 5),
    (lambda path: path.open("rb"), SIZE),
    (lambda path: path.open("rb", buffering=0), SIZE),
    (lambda path: path.open("r+b"), SIZE),
    (_named, 5),
    (_pipe, None),
    (_socket, None),
    (_packed, None),
]


@pytest.mark.parametrize(
    ("make", "total"), kinds, ids=["BytesIO", "file", "raw", "r+", "temporary", "pipe", "socket", "gzip"]
)
def test_the_total_is_told_where_it_is_known(
    recorded: Recording, op: Operation, path: Path, make: Callable[[Path], IO[bytes]], total: int | None
) -> None:
    with make(path) as plain:
        assert size(plain) == total
        assert len(_by_read(reading(plain))) == (total or 5)
    assert counted(recorded) == (total or 5, total)


def test_text_goes_through_a_wrapper(recorded: Recording, op: Operation, path: Path) -> None:
    with path.open("r") as text, pytest.raises(TypeError, match="open it with 'b'"):
        reading(text)  # type: ignore[arg-type]
    with io.TextIOWrapper(reading(path.open("rb")), newline="") as text:
        assert len(list(csv.reader(text))) == 100
    assert counted(recorded) == (SIZE, SIZE)
    with io.TextIOWrapper(writing(path.open("wb"), op.stage("write")), write_through=True, newline="") as text:
        csv.writer(text).writerows([[1, 2], [3, 4]])
    assert recorded.progress["stages"][0]["current"] == len("1,2\r\n3,4\r\n")


def test_archives_are_written_and_read(recorded: Recording, op: Operation, path: Path) -> None:
    for name in ("data.zip", "data.tar.gz"):
        archive = path.with_name(name)
        stages = {way: op.stage(f"{way} {name}") for way in ("write", "read")}
        with writing(archive.open("wb"), stages["write"]) as file:
            _pack(file, name, path)
        with reading(archive.open("rb"), stages["read"]) as file:
            _unpack(file, name, path.with_name("there"))
        assert path.with_name("there").joinpath("data").read_bytes() == DATA
        held = archive.stat().st_size
        assert stages["write"].gauge.current == held
        assert stages["read"].gauge.total == held
        assert held - 32 <= stages["read"].gauge.current <= held  # a zip need not be read completely


def _pack(file: CountedFile, name: str, path: Path) -> None:
    if name.endswith("zip"):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path, "data")
    else:
        with tarfile.open(fileobj=file, mode="w:gz") as tar:
            tar.add(path, "data")


def _unpack(file: CountedFile, name: str, to: Path) -> None:
    if name.endswith("zip"):
        with zipfile.ZipFile(file) as archive:
            archive.extractall(to)
    else:
        with tarfile.open(fileobj=file) as tar:
            tar.extractall(to, filter="data")


class _Taker(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(len(body)).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def taker() -> Iterator[str]:
    """A server that returns how many bytes it received, if Content-Length said so."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Taker) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_httpx_uploads_it(recorded: Recording, op: Operation, path: Path, taker: str) -> None:
    with reading(path.open("rb")) as file:
        assert httpx.post(taker, content=file, timeout=DEADLINE_S).json() == SIZE
    assert counted(recorded) == (SIZE, SIZE)
    with reading(path.open("rb"), op.stage("form")) as file:
        assert httpx.post(taker, files={"file": file}, timeout=DEADLINE_S).json() > SIZE
    assert recorded.progress["stages"][0]["current"] == SIZE


def test_requests_uploads_it(recorded: Recording, op: Operation, path: Path, taker: str) -> None:
    requests = pytest.importorskip("requests")
    with reading(path.open("rb")) as file:
        assert requests.post(taker, data=file, timeout=60).json() == SIZE
    assert counted(recorded) == (SIZE, SIZE)


def test_all_else_is_the_file_s_own(recorded: Recording, op: Operation, path: Path) -> None:
    with path.open("r+b") as plain:
        file = reading(plain)
        assert (file.name, file.mode, file.fileno()) == (str(path), "rb+", plain.fileno())
        assert (file.readable(), file.writable(), file.seekable(), file.isatty()) == (True, True, True, False)
        assert file.peek(4)[:4] == DATA[:4]  # this counts nothing yet
        assert recorded.progress.get("current", 0) == 0
        assert file.truncate(10) == 10
        file.flush()
        assert isinstance(file, io.IOBase)
        assert not hasattr(file, "of_nobody")
        del file
        assert not plain.closed


def test_what_only_looks_like_a_file_will_do(recorded: Recording, op: Operation) -> None:
    class Source:
        def __init__(self) -> None:
            self.left = [b"123", b"45", b""]

        def read(self, size: int = -1) -> bytes:
            return self.left.pop(0)

    class Target:
        def write(self, data: bytes) -> None:
            pass

    read: Any = Source()
    write: Any = Target()
    shutil.copyfileobj(reading(read, total=5), writing(write, op.stage("write")))
    assert counted(recorded) == (5, 5)
    assert recorded.progress["stages"][0]["current"] == 5
    assert not reading(read).writable()


def test_outside_an_operation_it_is_a_file_all_the_same(path: Path) -> None:
    with reading(path.open("rb")) as file:
        assert file.read() == DATA
    with writing(path.open("wb"), total=3) as file:
        assert file.write(b"abc") == 3


def test_a_buffer_around_it_is_counted(recorded: Recording, op: Operation, path: Path) -> None:
    with io.BufferedReader(reading(open(path, "rb", buffering=0))) as file:  # type: ignore[type-var]
        assert file.read() == DATA
    assert counted(recorded) == (SIZE, SIZE)


def test_the_total_is_told_before_anything_is_read(recorded: Recording, op: Operation, path: Path) -> None:
    with reading(path.open("rb")):
        assert counted(recorded) == (0, SIZE)


@pytest.mark.parametrize("file", ["path", b"", None])
@pytest.mark.parametrize("count", [reading, writing])
def test_what_is_no_file_is_rejected_at_once(count: Any, file: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a file object, not .*ing\(open\(path, '.b'\)\)"):
        count(file)
