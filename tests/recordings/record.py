"""Records what real tools print, for `tests/workers/test_recordings.py`: `python -m tests.recordings.record [NAME]…`.

Everything is local: files in a temporary directory, and servers on 127.0.0.1 that send slowly. A tool that is not
installed is left out. A recording is the tool's output as `progress-broker run` gets it, through pipes, unless it is
marked `terminal`: then through a pseudo-terminal, as with `script -qec`. Each chunk has the seconds since the one
before, the stream, and the bytes, as UTF-8 (bytes that are not UTF-8 are lone surrogates).

Recordings with `"source": "typed"` were not made here: they were typed from the public format of their tool.
"""

import hashlib
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
MAX_CHUNKS = 60
"""Of a longer recording, chunks that came together are joined, and then chunks in the middle are left out."""
Chunk = tuple[float, str, bytes]

CLEAN = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")} | {
    "LC_ALL": "C.UTF-8",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "NPM_CONFIG_USERCONFIG": os.devnull,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "TERM": "xterm",
}


class Tool(NamedTuple):
    command: list[str]
    env: Mapping[str, str] = MappingProxyType({})
    terminal: bool = False
    shown: str = ""
    """The command as people type it."""


class SlowServer(ThreadingHTTPServer):
    """Serves a directory, a few chunks a second."""

    def __init__(self, folder: Path, chunk: int = 200_000, pause_s: float = 0.06) -> None:
        self.folder, self.chunk, self.pause_s = folder, chunk, pause_s
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: SlowServer

    def do_GET(self) -> None:
        path = self.server.folder / self.path.partition("?")[0].strip("/")
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes().replace(b"@URL@", self.server.url.encode())
        kinds = {".html": "text/html", ".mp4": "video/mp4", ".json": "application/json"}
        self.send_response(200)
        self.send_header("Content-Type", kinds.get(path.suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if path.name.startswith("cut"):
            data, self.close_connection = data[: len(data) // 2], True
        with suppress(ConnectionError):
            for start in range(0, len(data) if self.command == "GET" else 0, self.server.chunk):
                self.wfile.write(data[start : start + self.server.chunk])
                time.sleep(self.server.pause_s)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def slow_server(folder: Path, **pace: Any) -> Iterator[str]:
    with SlowServer(folder, **pace) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.url
        server.shutdown()


def record(tool: Tool, folder: Path) -> tuple[list[Chunk], int]:
    """Run a command and return its output in chunks, and its exit code."""
    ours: list[tuple[int, str]]
    if tool.terminal:
        master, slave = pty.openpty()
        ours, theirs = [(master, "stdout")], [slave, slave]
    else:
        out, err = os.pipe(), os.pipe()
        ours, theirs = [(out[0], "stdout"), (err[0], "stderr")], [out[1], err[1]]
    env = CLEAN | dict(tool.env)
    process = subprocess.Popen(
        tool.command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=theirs[0], stderr=theirs[1]
    )
    for descriptor in set(theirs):
        os.close(descriptor)
    chunks: list[Chunk] = []
    last = time.monotonic()
    while ours:
        ready, _, _ = select.select([descriptor for descriptor, _ in ours], [], [])
        for descriptor, name in [pair for pair in ours if pair[0] in ready]:
            try:
                data = os.read(descriptor, 65_536)
            except OSError:  # the other end of a terminal is closed
                data = b""
            if not data:
                os.close(descriptor)
                ours.remove((descriptor, name))
                continue
            now = time.monotonic()
            chunks.append((round(now - last, 3), name, data))
            last = now
    return chunks, process.wait()


def write(name: str, tool: Tool, chunks: list[Chunk], code: int, folder: Path) -> None:
    """Write a recording, one chunk a line."""
    if len(chunks) > MAX_CHUNKS:
        chunks = joined(chunks)
    left_out = max(0, len(chunks) - MAX_CHUNKS)
    if left_out:
        half = MAX_CHUNKS // 2
        chunks = chunks[:half] + chunks[-half:]
    head = {
        "source": "recorded",
        "command": tool.shown or " ".join(tool.command),
        "terminal": tool.terminal,
        "exit_code": code,
        "chunks_left_out": left_out,
    }
    lines = [f'"{key}": {json.dumps(value)}' for key, value in head.items()]
    said = ",\n".join(json.dumps([at, stream, scrubbed(data, folder)]) for at, stream, data in chunks)
    (FOLDER / f"{name}.json").write_text("{" + ",\n".join(lines) + ',\n"chunks": [\n' + said + "\n]}\n")


def joined(chunks: list[Chunk]) -> list[Chunk]:
    """Join chunks of a stream between which there was less than a millisecond."""
    found: list[Chunk] = []
    for pause, stream, data in chunks:
        if found and found[-1][1] == stream and pause < 0.001:
            found[-1] = (*found[-1][:2], found[-1][2] + data)
        else:
            found.append((pause, stream, data))
    return found


def scrubbed(data: bytes, folder: Path) -> str:
    """Return output as text, without the names of this machine."""
    data = re.sub(rb"CPUs [^()]*\([^()]*\)", b"CPUs", data.replace(str(folder).encode(), b"/data"))
    return data.decode("utf-8", "surrogateescape")


# The tools. Each function prepares a directory, and yields what to run there.

Prepare = Callable[[Path], Any]
TOOLS: dict[str, Prepare] = {}


def tool(prepare: Prepare) -> Prepare:
    TOOLS[prepare.__name__] = prepare
    return prepare


def noise(size: int) -> bytes:
    return os.urandom(size)


def many_files(folder: Path, number: int = 300, size: int = 10_000) -> Path:
    source = folder / "src"
    source.mkdir()
    for i in range(number):
        (source / f"file-{i:03}.bin").write_bytes(noise(size))
    return source


@tool
def rsync_progress2(folder: Path) -> Iterator[Tool]:
    many_files(folder)
    yield Tool(["rsync", "-a", "--info=progress2", "--bwlimit=900", "src/", "dst"])


@tool
def rsync_progress(folder: Path) -> Iterator[Tool]:
    many_files(folder, 3, 700_000)
    yield Tool(["rsync", "-a", "--progress", "--bwlimit=900", "src/", "dst"])


@tool
def git_clone(folder: Path) -> Iterator[Tool]:
    repository = folder / "repo"
    git = partial(subprocess.run, cwd=repository, check=True, env=CLEAN, capture_output=True)
    repository.mkdir()
    git(["git", "init", "-q", "-b", "main"])
    for turn in range(6):
        for i in range(50):
            fixed = hashlib.shake_256(str(i).encode()).hexdigest(3000)
            (repository / f"{i}.txt").write_text(f"{turn}\n{fixed}\n{noise(500).hex()}\n")
        git(["git", "add", "."])
        git(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "more"])
    slowly = folder / "slowly"
    slowly.write_text('#!/bin/sh\ngit-upload-pack "$@" | pv -q -L 400k\n')
    slowly.chmod(0o755)
    command = ["git", "clone", "--progress", "-u", str(slowly), f"file://{repository}", "clone"]
    yield Tool(command, shown="git clone --progress file:///repo clone")


def wheels(folder: Path) -> Path:
    """Return a directory of wheels, as a package index."""
    index = folder / "index" / "simple"
    for name in ("ada", "grace"):
        place = folder / "wheels" / name
        (place / name).mkdir(parents=True)
        (place / name / "data.bin").write_bytes(noise(2_000_000 if name == "ada" else 1_200_000))
        about = place / f"{name}-1.0.dist-info"
        about.mkdir()
        needs = "Requires-Dist: grace\n" if name == "ada" else ""
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}")
        (about / "WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        (about / "RECORD").write_text("")
        target = index / name
        target.mkdir(parents=True)
        wheel = f"{name}-1.0-py3-none-any.whl"
        shutil.make_archive(str(target / name), "zip", place)
        (target / f"{name}.zip").rename(target / wheel)
        (target / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>')
    return folder / "index"


def pip(folder: Path, *options: str, terminal: bool = False) -> Iterator[Tool]:
    with slow_server(wheels(folder)) as url:
        words = ["pip", "download", "--no-cache-dir", "--index-url", f"{url}/simple", *options, "ada"]
        shown = " ".join(["pip", "download", *options, "ada"])
        yield Tool([sys.executable, "-m", *words], {"COLUMNS": "80"}, terminal, shown)


@tool
def pip_download(folder: Path) -> Iterator[Tool]:
    yield from pip(folder)


@tool
def pip_download_raw(folder: Path) -> Iterator[Tool]:
    yield from pip(folder, "--progress-bar", "raw")


@tool
def pip_download_terminal(folder: Path) -> Iterator[Tool]:
    yield from pip(folder, terminal=True)


@tool
def npm_install(folder: Path) -> Iterator[Tool]:
    registry, package = folder / "registry", folder / "package"
    package.mkdir()
    (package / "package.json").write_text('{"name": "ada", "version": "1.0.0"}')
    (package / "data.bin").write_bytes(noise(1_000_000))
    (registry / "ada").mkdir(parents=True)
    subprocess.run(["tar", "czf", registry / "ada.tgz", "package"], cwd=folder, check=True)
    dist = {"tarball": "@URL@/ada.tgz"}
    version = {"name": "ada", "version": "1.0.0", "dist": dist}
    index = {"name": "ada", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    (registry / "ada" / "index.html").write_text(json.dumps(index))
    (folder / "app").mkdir()
    with slow_server(registry) as url:
        options = ["--registry", url, "--cache", str(folder / "cache"), "--no-audit", "--no-fund", "--prefix", "app"]
        yield Tool(["npm", "install", *options, "ada"], shown="npm install ada")


@tool
def p7zip(folder: Path) -> Iterator[Tool]:
    many_files(folder, 20, 1_500_000)
    yield Tool(["7z", "a", "-bsp1", "-mmt1", "-mx3", "all.7z", "src"])


@tool
def sevenzip(folder: Path) -> Iterator[Tool]:
    many_files(folder, 20, 1_500_000)
    yield Tool(["7zz", "a", "-bsp1", "-mmt1", "-mx3", "all.7z", "src"])


@tool
def cargo(folder: Path) -> Iterator[Tool]:
    names = ["one", "two", "three"]
    for name in (*names, "app"):
        (folder / name / "src").mkdir(parents=True)
        needs = "".join(f'{other} = {{ path = "../{other}" }}\n' for other in names) if name == "app" else ""
        about = f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\n{needs}'
        (folder / name / "Cargo.toml").write_text(about)
        main = "fn main() {}" if name == "app" else 'pub fn f<T: std::fmt::Debug>(x: T) -> String { format!("{x:?}") }'
        (folder / name / "src" / ("main.rs" if name == "app" else "lib.rs")).write_text(main)
    always = {"CARGO_TERM_PROGRESS_WHEN": "always", "CARGO_TERM_PROGRESS_WIDTH": "80", "CARGO_HOME": str(folder / "c")}
    always |= {"RUSTUP_HOME": os.environ.get("RUSTUP_HOME", str(Path.home() / ".rustup"))}
    command = ["cargo", "build", "--offline", "-j1", "--manifest-path", "app/Cargo.toml"]
    shown = "CARGO_TERM_PROGRESS_WHEN=always CARGO_TERM_PROGRESS_WIDTH=80 cargo build"
    yield Tool(command, always, shown=shown)


def download(folder: Path, *command: str, name: str = "data.bin") -> Iterator[Tool]:
    served = folder / "served"
    served.mkdir()
    (served / name).write_bytes(noise(3_000_000))
    with slow_server(served, pause_s=0.15) as url:
        yield Tool([*command, f"{url}/{name}"], shown=" ".join([*command, f"http://127.0.0.1/{name}"]))


@tool
def curl(folder: Path) -> Iterator[Tool]:
    yield from download(folder, "curl", "-o", "copy.bin")


@tool
def curl_cut(folder: Path) -> Iterator[Tool]:
    yield from download(folder, "curl", "-o", "copy.bin", name="cut.bin")


@tool
def curl_bar(folder: Path) -> Iterator[Tool]:
    yield from download(folder, "curl", "-#", "-o", "copy.bin")


@tool
def wget(folder: Path) -> Iterator[Tool]:
    yield from download(folder, "wget")


@tool
def wget_bar(folder: Path) -> Iterator[Tool]:
    yield from download(folder, "wget", "--progress=bar:force")


@tool
def yt_dlp(folder: Path) -> Iterator[Tool]:
    yield from download(folder, "yt-dlp", "-o", "copy.mp4", name="film.mp4")


def apt(folder: Path, *, terminal: bool) -> Iterator[Tool]:
    package = folder / "ada"
    (package / "DEBIAN").mkdir(parents=True)
    control = "Package: ada\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@b>\nDescription: a test\n"
    (package / "DEBIAN" / "control").write_text(control)
    (package / "data.bin").write_bytes(noise(4_000_000))
    served = folder / "served"
    served.mkdir()
    subprocess.run(["dpkg-deb", "-b", package, served / "ada.deb"], check=True, capture_output=True)
    digest = subprocess.run(["sha256sum", served / "ada.deb"], check=True, capture_output=True, text=True).stdout[:64]
    size = (served / "ada.deb").stat().st_size
    (served / "Packages").write_text(f"{control}Filename: ./ada.deb\nSize: {size}\nSHA256: {digest}\n")
    for name in ("lists/partial", "archives/partial", "parts", "copy"):
        (folder / name).mkdir(parents=True)
    (folder / "status").write_text("")
    with slow_server(served, pause_s=0.1) as url:
        (folder / "sources.list").write_text(f"deb [trusted=yes] {url} ./\n")
        settings = {
            "Dir::Etc::SourceList": folder / "sources.list",
            "Dir::Etc::SourceParts": folder / "parts",
            "Dir::State::Lists": folder / "lists",
            "Dir::State::Status": folder / "status",
            "Dir::Cache": folder,
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        both = 'apt-get "$@" update && apt-get "$@" install -y --download-only ada'
        shown = "apt-get update && apt-get install -y --download-only ada"
        yield Tool(["sh", "-c", both, "sh", *options], {}, terminal, shown)


@tool
def apt_get(folder: Path) -> Iterator[Tool]:
    yield from apt(folder, terminal=False)


@tool
def apt_get_terminal(folder: Path) -> Iterator[Tool]:
    yield from apt(folder, terminal=True)


@tool
def tar_checkpoint(folder: Path) -> Iterator[Tool]:
    many_files(folder, 100)
    yield Tool(["tar", "cf", "all.tar", "--checkpoint=20", "src"])


@tool
def tar_pv(folder: Path) -> Iterator[Tool]:
    many_files(folder, 100, 20_000)
    yield Tool(["sh", "-c", "tar cf - src | pv -f -w 80 -i 0.2 -L 900k -s 2m > all.tar"])


@tool
def dd(folder: Path) -> Iterator[Tool]:
    command = "pv -q -L 2m /dev/zero | dd of=/dev/null bs=100k count=60 iflag=fullblock status=progress"
    yield Tool(["sh", "-c", command], shown="dd of=/dev/null bs=100k count=60 status=progress")


@tool
def pv(folder: Path) -> Iterator[Tool]:
    (folder / "data.bin").write_bytes(noise(2_000_000))
    yield Tool(["sh", "-c", "pv -f -w 80 -i 0.2 -L 1m data.bin > copy.bin"])


def python(code: str) -> Iterator[Tool]:
    code = textwrap.dedent(code).strip()
    yield Tool([sys.executable, "-c", code], {"COLUMNS": "80"}, shown=f"python -c '{code}'")


@tool
def tqdm(folder: Path) -> Iterator[Tool]:
    yield from python(
        """
        import time, tqdm
        for name in ("read", "write"):
            for i in tqdm.tqdm(range(20), desc=name, mininterval=0.1):
                time.sleep(0.04)
        """
    )


@tool
def tqdm_nested(folder: Path) -> Iterator[Tool]:
    yield from python(
        """
        import time, tqdm
        for i in tqdm.trange(3, desc="all", mininterval=0.1):
            for j in tqdm.trange(8, desc="part", mininterval=0.1):
                time.sleep(0.06)
        print("done")
        """
    )


@tool
def tqdm_parallel(folder: Path) -> Iterator[Tool]:
    yield from python(
        """
        import time, tqdm
        bars = [tqdm.tqdm(total=10 * (n + 1), desc=f"file {n}", position=n, mininterval=0.1) for n in range(3)]
        for i in range(30):
            for n, bar in enumerate(bars):
                bar.update(1 if i < bar.total else 0)
            time.sleep(0.05)
        for bar in bars:
            bar.close()
        """
    )


@tool
def tqdm_unnamed(folder: Path) -> Iterator[Tool]:
    yield from python(
        """
        import time, tqdm
        bars = [tqdm.tqdm(total=10, position=n, mininterval=0.1) for n in range(3)]
        for i in range(20):
            for n, bar in enumerate(bars):
                bar.update(1 if i % (n + 1) == 0 and bar.n < 10 else 0)
            time.sleep(0.05)
        for bar in bars:
            bar.close()
        """
    )


@tool
def tqdm_nested_unnamed(folder: Path) -> Iterator[Tool]:
    yield from python(
        """
        import time, tqdm
        for i in tqdm.trange(4, mininterval=0.1):
            for j in tqdm.trange(9, mininterval=0.1, leave=False):
                time.sleep(0.04)
        """
    )


@tool
def tqdm_pool(folder: Path) -> Iterator[Tool]:
    yield from python(
        """
        import time, tqdm
        from concurrent.futures import ThreadPoolExecutor
        def work(n):
            for i in tqdm.trange(10 + n, desc=f"file {n}", position=n % 3, leave=False, mininterval=0.1):
                time.sleep(0.03)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(work, range(6)))
        """
    )


@tool
def tqdm_whole(folder: Path) -> Iterator[Tool]:
    yield from python(
        """
        import time, tqdm
        from concurrent.futures import ThreadPoolExecutor
        whole = tqdm.tqdm(total=6, desc="all", position=0, mininterval=0.1)
        def work(n):
            for i in tqdm.trange(10 + n, desc=f"file {n}", position=1 + n % 3, leave=False, mininterval=0.1):
                time.sleep(0.03)
            whole.update()
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(work, range(6)))
        whole.close()
        """
    )


@tool
def rich_parallel(folder: Path) -> Iterator[Tool]:
    for made in python(
        """
        import time
        from rich.progress import Progress
        with Progress() as progress:
            tasks = [progress.add_task(name, total=of) for name, of in (("read", 20), ("sort", 30), ("write", 40))]
            for i in range(40):
                for task in tasks:
                    progress.advance(task)
                time.sleep(0.05)
        """
    ):
        yield made._replace(terminal=True)


@tool
def rich_nested(folder: Path) -> Iterator[Tool]:
    for made in python(
        """
        import time
        from rich.progress import Progress
        with Progress() as progress:
            outer = progress.add_task("all", total=4)
            inner = progress.add_task("part", total=10)
            for i in range(4):
                progress.reset(inner)
                for j in range(10):
                    time.sleep(0.05)
                    progress.advance(inner)
                progress.advance(outer)
        """
    ):
        yield made._replace(terminal=True)


@tool
def wget_parallel(folder: Path) -> Iterator[Tool]:
    served = folder / "served"
    served.mkdir()
    for number, name in enumerate(("ada", "grace", "joan")):
        (served / f"{name}.bin").write_bytes(noise(1_500_000 + 700_000 * number))
    with slow_server(served, pause_s=0.15) as url:
        one = "wget -q --show-progress --progress=bar:force"
        command = f"printf '%s\\n' ada grace joan | xargs -P3 -I@ {one} {url}/@.bin"
        yield Tool(["sh", "-c", command], shown=command.replace(url, "http://127.0.0.1"))


@tool
def ninja(folder: Path) -> Iterator[Tool]:
    rules = "rule slow\n  command = sleep 0.1 && touch $out\n  description = Making $out\n"
    (folder / "build.ninja").write_text(rules + "".join(f"build out-{i}: slow\n" for i in range(12)))
    yield Tool(["ninja", "-j2"])


@tool
def ninja_terminal(folder: Path) -> Iterator[Tool]:
    for made in ninja(folder):
        yield made._replace(terminal=True)


@tool
def cmake(folder: Path) -> Iterator[Tool]:
    for i in range(6):
        (folder / f"part{i}.c").write_text(f"int part{i}(void) {{ return {i}; }}\n")
    sources = " ".join(f"part{i}.c" for i in range(6))
    about = f"cmake_minimum_required(VERSION 3.13)\nproject(ada C)\nadd_library(ada {sources})\n"
    (folder / "CMakeLists.txt").write_text(about)
    configure = ["cmake", "-S", ".", "-B", "build", "-G", "Unix Makefiles"]
    subprocess.run(configure, cwd=folder, check=True, capture_output=True)
    yield Tool(["cmake", "--build", "build"])


@tool
def aws_s3_cp(folder: Path) -> Iterator[Tool]:
    (folder / "data.bin").write_bytes(noise(6_000_000))
    with slow_server(folder) as url:
        port = url.rpartition(":")[2]  # free again in a moment
    with subprocess.Popen(["moto_server", "-H", "127.0.0.1", "-p", port], stderr=subprocess.DEVNULL) as server:
        try:
            make = ["aws", "--endpoint-url", url, "s3", "mb", "s3://bucket"]
            while subprocess.run(make, env=CLEAN, capture_output=True).returncode:
                time.sleep(0.5)
            command = ["aws", "--endpoint-url", url, "s3", "cp", "data.bin", "s3://bucket/data.bin"]
            (folder / "config").write_text("[default]\ns3 =\n  max_bandwidth = 3MB/s\n  multipart_threshold = 64MB\n")
            shown = "aws s3 cp data.bin s3://bucket/data.bin"
            yield Tool(command, {"AWS_CONFIG_FILE": str(folder / "config")}, shown=shown)
        finally:
            server.terminate()


def main(names: list[str]) -> None:
    for name in names or TOOLS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            try:
                for made in TOOLS[name](folder):
                    chunks, code = record(made, folder)
                    write(name, made, chunks, code, folder)
                    print(f"{name}: {len(chunks)} chunks, exit code {code}")
            except FileNotFoundError as error:
                print(f"{name}: left out: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
