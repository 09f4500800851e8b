"""Commands that reach the operations through a server, which alone knows where Redis is."""

import json
import logging
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from progress_broker.errors import BrokerError, SetupError
from progress_broker.settings import Settings
from progress_workers import Operation
from tests.api.proofs import AUDIENCE, SECRET, token
from tests.cli.conftest import Shell
from tests.cli.test_many import many_at_once
from tests.servers import ApiReplica, RealRedis, free_port, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiReplica]:
    folder = tmp_path_factory.mktemp("api")
    settings = {"auth": "jwt", "jwt_key": SECRET, "jwt_audience": AUDIENCE}
    with RealRedis(folder / "redis") as redis, ApiReplica(redis.url, folder / "log", **settings) as replica:
        yield replica


@pytest.fixture
def remote(server: ApiReplica, tmp_path: Path) -> Shell:
    """A shell with the address of a server, and the token of an administrator."""
    (tmp_path / "token").write_text(token("root", grants=[{"actions": ["admin"]}]))
    return Shell(tmp_path, url=server.url, token_file=str(tmp_path / "token"), data_dir=str(tmp_path / "none"))


def test_every_command_does_what_it_does_in_redis(remote: Shell) -> None:
    events = [{"type": "log", "data": {"message": "x" * 50_000}} for _ in range(60)]  # more than one request's worth
    lines = "".join(json.dumps(event) + "\n" for event in events)
    assert "a: 61 events" in remote.says("publish", "a", "--create", "--kind", "import", "-", stdin=lines.encode())
    remote.says("publish", "a", "--type", "progress", "--data", '{"percent": 40}')
    assert [row.split()[:3] for row in remote.says("ls", "--kind", "import").splitlines()[1:]] == [
        ["a", "import", "running"]
    ]
    assert "status    running" in remote.says("show", "a")
    assert remote.says("signal", "a", "pause") == "a: sent pause\n"
    assert remote.says("cancel", "a", "--reason", "enough") == "a: cancelling\n"
    assert remote.says("cancel", "a") == "a: already cancelling: asked to stop by root: enough\n"
    assert remote.says("cancel", "a", "--force") == "a: ended by force: cancelled\n"
    assert remote.says("cancel", "a") == "a: already cancelled\n"
    assert len(remote.lines("ls", "--limit", "1")) == 1
    tailed = remote.run("tail", "a", "--from", "start", "--json")
    assert tailed.returncode == 3
    kinds = [json.loads(line)["type"] for line in tailed.stdout.splitlines()]
    assert kinds == ["status", *["log"] * 60, "status", "progress", "status", "end"]
    assert "there is no operation" in remote.fails(4, "show", "b")
    assert "not a valid position" in remote.fails(2, "tail", "a", "--from", "yesterday")


def test_commands_on_many_do_what_they_do_in_redis(remote: Shell) -> None:
    many_at_once(remote)


def test_operations_are_moved_through_a_server(remote: Shell) -> None:
    for id in ("moved-1", "moved-2", "moved-3"):
        remote.says("publish", id, "--create", "--kind", "move", "--type", "progress", "--data", "{}")
        remote.says("publish", id, "--type", "end", "--data", '{"status": "succeeded"}')
    assert "3 operations with 12 events exported" in remote.run("export", "--kind", "move", "all.ndjson").stderr
    done = remote.run("import", "all.ndjson")
    assert (done.returncode, done.stderr) == (0, "progress-broker: 3 operations: 3 skipped\n")
    done = remote.run("import", "all.ndjson", "--on-conflict", "suffix=-b", "-o", "name")
    assert (done.returncode, sorted(done.stdout.split())) == (0, ["moved-1-b", "moved-2-b", "moved-3-b"])
    assert len(remote.says("ls", "--kind", "move").splitlines()) == 7
    tail = remote.says("tail", "moved-1", "--from", "start", "--json")
    assert remote.run("replay", "moved-1", "--speed", "max").stdout == tail
    none = remote.run("export", "nobody", "none.ndjson")
    assert (none.returncode, "there is no operation nobody" in none.stderr) == (4, True)


def test_a_command_is_run_as_an_operation(remote: Shell) -> None:
    remote.says("run", "--id", "ran", "--", "sh", "-c", "echo one; echo 50%")
    assert remote.lines("show", "ran")[0]["status"] == "succeeded"
    assert '"one"' in remote.run("tail", "ran", "--from", "start", "--json").stdout
    (remote.folder / "token").write_text(token("reader", grants=[{"actions": ["read"]}]))
    with remote.open("run", "--id", "unreported", "--", "echo", "done") as run:
        output, errors = run.communicate()
    assert (run.returncode, output) == (0, b"done\n")
    assert b"the work of operation unreported goes on unreported: your grants do not allow" in errors
    assert errors.count(b"\n") == 1
    with remote.open("run", "--require", "--id", "unreported", "--", "echo", "done") as run:
        assert b"done" not in run.communicate()[0]


def test_tail_follows_a_server_that_restarts(tmp_path: Path) -> None:
    with RealRedis(tmp_path / "redis") as redis, ApiReplica(redis.url, tmp_path / "log") as server:
        shell = Shell(tmp_path, url=server.url)
        shell.says("publish", "a", "--create")
        with shell.open("tail", "a") as tail:
            assert tail.stdout
            assert tail.stderr
            assert tail.stdout.readline() == b"a: now pending\n"
            server.stop(9)
            assert b"can't be reached" in tail.stderr.readline()
            server.start().await_ready()
            shell.says("publish", "a", "--type", "end", "--data", '{"status": "succeeded"}')
            assert tail.wait(120) == 0
            assert [line.split()[1:3] for line in tail.stdout] == [[b"end", b"succeeded"]]


def test_options_say_where_the_server_is(remote: Shell, server: ApiReplica) -> None:
    for name in ("URL", "TOKEN_FILE"):
        del remote.env[f"PROGRESS_{name}"]
    remote.env["PROGRESS_REDIS_URL"] = "redis://127.0.0.1:1"  # replaced by --url
    where = "--url", server.url, "--token-file", str(remote.folder / "token")
    remote.says("publish", "by-option", "--create", *where)
    assert remote.lines("show", "by-option", *where)[0]["id"] == "by-option"
    assert "set PROGRESS_TOKEN or PROGRESS_TOKEN_FILE to an API key" in remote.fails(5, "ls", "--url", server.url)
    assert "can't be read" in remote.fails(5, "ls", "--url", server.url, "--token-file", "none")


def test_the_retention_and_revocations_are_changed(remote: Shell) -> None:
    assert "are kept for 1d, operations without events for 7d." in remote.says("retention")
    remote.says("publish", "kept", "--create")
    said = remote.says("retention", "--ended", "2h")
    assert "existing operations expire at another time now.\nEnded operations are kept for 2h" in said
    assert "are kept for 2h, operations without events for 7d." in remote.says("retention")
    assert "--ended 9999d is too long: at most 3660d" in remote.fails(2, "retention", "--ended", "9999d")
    remote.says("retention", "--ended", "1d")
    remote.says("auth", "revoke", "--sub", "eve", "--for", "1h")
    assert "sub 'eve' is revoked until 20" in remote.says("auth", "list")
    remote.says("auth", "restore", "--sub", "eve")
    assert remote.says("auth", "list") == ""
    assert "not revoked" in remote.fails(4, "auth", "restore", "--sub", "eve")
    found = json.loads(remote.says("audit", "--who", "root", "-o", "json"))
    details = {(entry["action"], entry["result"]): entry["detail"] for entry in found}
    assert details["retention", "ok"] in ("ended 2h, idle 7d", "ended 1d, idle 7d")
    assert details["revoke", "ok"] == "for 3600 s"
    assert ("restore", "ok") in details
    assert ("restore", "not-found") in details


@pytest.fixture
def home(remote: Shell) -> Shell:
    """A shell whose user has a folder for contexts, and which is not told where a server is."""
    for name in ("URL", "TOKEN_FILE"):
        del remote.env[f"PROGRESS_{name}"]
    remote.env["XDG_CONFIG_HOME"] = str(remote.folder / "config")
    return remote


def test_a_context_says_where_the_server_is(home: Shell, server: ApiReplica) -> None:
    assert "there is no context 'here'" in home.fails(4, "context", "use", "here")
    assert "is not a valid name" in home.fails(2, "context", "add", "a b", "--url", server.url)
    assert "there is no file" in home.fails(5, "context", "add", "here", "--url", server.url, "--token-file", "none")
    said = home.says("context", "add", "here", "--url", f"{server.url}/", "--token-file", "token")
    assert said.startswith(f"context here is {server.url}:")
    home.says("context", "add", "away", "--url", "http://127.0.0.1:1")
    home.says("publish", "by-context", "--create", "--context", "here")
    assert "no Redis found" in home.fails(5, "show", "by-context")  # none is in use yet
    home.says("context", "use", "here")
    token_file = str(home.folder / "token")
    assert json.loads(home.says("context", "ls", "-o", "json")) == [
        {"name": "away", "url": "http://127.0.0.1:1", "token_file": None, "in_use": False},
        {"name": "here", "url": server.url, "token_file": token_file, "in_use": True},
    ]
    done = home.run("show", "by-context")
    assert (done.returncode, done.stderr) == (0, f"progress-broker: context here: {server.url}\n")
    # An option counts more than the environment, which counts more than the context in use.
    assert "can't be reached" in home.fails(5, "ls", "--context", "away")
    home.env["PROGRESS_URL"] = "http://127.0.0.1:1"
    assert "can't be reached" in home.fails(5, "ls")
    assert home.lines("show", "by-context", "--context", "here")[0]["id"] == "by-context"
    del home.env["PROGRESS_URL"]
    assert "leave out --url" in home.fails(2, "ls", "--context", "here", "--url", server.url)
    assert "no context is in use" in home.run("context", "rm", "here").stderr
    assert "no Redis found" in home.fails(5, "ls")
    (home.folder / "config" / "progress-broker" / "contexts.toml").write_text("[[")
    assert "can't be read" in home.fails(5, "context", "ls")


def test_bash_completes_ids_and_contexts(home: Shell, server: ApiReplica) -> None:
    home.says("context", "add", "here", "--url", server.url, "--token-file", "token")
    home.says("publish", "completed-1", "--create", "--context", "here")

    def completes(*words: str) -> list[str]:
        script = f"""PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH
            eval "$(progress-broker --show-completion bash)"
            COMP_WORDS=(progress-broker {shlex.join(words)}) COMP_CWORD={len(words)}
            _progress_broker_completion progress-broker
            printf '%s\n' "${{COMPREPLY[@]}}" """
        done = subprocess.run(["bash", "-c", script], env=home.env, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout.split()

    assert completes("ls", "--context", "he") == ["here"]
    for command in ("show", "rm"):
        words = (command, "--context", "here", "completed-")
        wait_until(lambda words=words: completes(*words) == ["completed-1"], "the server answers in time")
    assert completes("show", "--context", "nowhere", "completed-") == []


def test_what_needs_redis_itself_says_so(remote: Shell) -> None:
    assert remote.fails(5, "archive", "--to", "archived", "--once") == (
        "this command works in Redis itself, not through PROGRESS_URL: set PROGRESS_REDIS_URL, or use --redis-url"
    )


def test_two_addresses_are_an_error_that_says_which_to_remove(remote: Shell) -> None:
    remote.env["PROGRESS_REDIS_URL"] = "redis://127.0.0.1:1"
    assert remote.fails(5, "ls").startswith("PROGRESS_URL and PROGRESS_REDIS_URL are both set: remove PROGRESS_REDIS_")


class Page(BaseHTTPRequestHandler):
    """A server of another kind."""

    status = 200

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.status)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web_page(status: int) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), type("Page", (Page,), {"status": status})) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_wrong_address_is_an_error_that_says_what_to_do(remote: Shell, server: ApiReplica) -> None:
    """To a command, as one line, and to a worker; one that need not report goes on."""
    open_server, answer = server.url, "PROGRESS_URL right, with its path?"
    with web_page(200) as page, web_page(404) as missing, web_page(407) as proxy, web_page(413) as small:
        for url, said in {
            f"{open_server}/v1/": "remove /v1 and what follows it from the end of PROGRESS_URL",
            f"{open_server}/progress": "is the path in PROGRESS_URL right, and the server no older than this program?",
            f"https{open_server.removeprefix('http')}": "TLS failed (WRONG_VERSION_NUMBER): does it speak HTTPS?",
            f"http://127.0.0.1:{free_port()}": "can't be reached: nothing listens there (connection refused)",
            "http://nobody.invalid": "can't be reached: its host name has no address",
            page: f"answered as no progress server does, with b'<html>hello</html>': is {answer}",
            missing: f"answered 404, as no progress server does: is {answer}",
            proxy: "asks for credentials: set HTTP_PROXY or HTTPS_PROXY",
            small: "answered 413, as a proxy before a progress server does",
        }.items():
            code = 2 if url == small else 5
            assert said in remote.fails(code, "ls", "--url", url)
            settings = Settings(_env_file=None, url=url, token_file=remote.folder / "token")
            with pytest.raises(BrokerError, match=re.escape(said)):
                Operation.start("import", settings=settings, required=True)


def test_what_can_t_be_set_up_does_not_stop_the_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "progress_workers")
    nowhere = f"http://127.0.0.1:{free_port()}"
    for bad, said in (
        ({"redis_url": "redis://here"}, "no progress is reported: PROGRESS_URL and PROGRESS_REDIS_URL are both set"),
        ({"token_file": tmp_path / "none"}, "PROGRESS_TOKEN_FILE can't be read"),
    ):
        settings = Settings(_env_file=None, url=nowhere, **bad)
        for _ in range(2):
            op = Operation.start("import", settings=settings)
            op.log("the work goes on")
            op._reporter.discard(told=False)  # nothing of it is left for the tests that follow
        assert sum(said in line for line in caplog.messages) == 1
        with pytest.raises(SetupError):
            Operation.start("import", settings=settings.model_copy(update={"required": True}))


def test_a_server_ignores_the_address_of_another(tmp_path: Path, redis_url: str) -> None:
    with ApiReplica(redis_url, tmp_path / "log", url="http://127.0.0.1:1", token="abc") as server:
        wait_until(lambda: "serving on" in server.output(), "it serves")
