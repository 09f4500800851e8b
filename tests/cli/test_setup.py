"""A wrong setup is reported in one line, with an exit code, and without secrets."""

import re
import socket
from pathlib import Path

import pytest

from progress_broker.errors import SetupError
from progress_broker.settings import Settings
from progress_cli.unknown_settings import misspelled
from progress_server.server.server import check
from tests.cli.conftest import Shell
from tests.conftest import make_settings
from tests.servers import RealRedis, free_port

BAD = [
    ({"port": "many"}, r"invalid settings: PROGRESS_PORT: .*integer"),
    ({"port": "-1", "lease_s": "0"}, r"invalid settings: PROGRESS_PORT: .*; PROGRESS_LEASE_S: "),
    ({"redis_url": "http://:s3cret@localhost"}, r"invalid settings: PROGRESS_REDIS_URL: .*redis://"),
    ({"redis_url": "redis://u:s3cret/s3cret@localhost:6379/0"}, r"PROGRESS_REDIS_URL is invalid"),
    ({"redis_url": "redis://localhost:6379/0?nonsense=1"}, r"PROGRESS_REDIS_URL is invalid"),
    ({"redis_url": "redis://u:s3cret@a,b"}, r"PROGRESS_REDIS_URL is invalid \(it names several hosts"),
    ({"redis_url": "redis+cluster://:s3cret@127.0.0.1:1"}, r"Redis can't be reached"),
    (
        {"redis_url": "redis+sentinel://:s3cret@127.0.0.1:1/main?sentinel_password=s3cret"},
        r"Redis can't be reached: no sentinel of redis\+sentinel://127.0.0.1:1/main names a master",
    ),
    ({"ticket_secret": "s3cret"}, r"invalid settings: PROGRESS_TICKET_SECRET: the secret must have at least 32 bytes"),
    (
        {"cors_origins": "https://a.test/"},
        r"invalid settings: PROGRESS_CORS_ORIGINS: 'https://a.test/' is not an origin",
    ),
    ({"redis_url": "redis://:s3cret@127.0.0.1:1/0"}, r"Redis can't be reached"),
]


@pytest.mark.parametrize(("settings", "said"), BAD)
def test_a_bad_setting(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    line = Shell(tmp_path, data_dir=str(tmp_path / "data"), **settings).fails(5, "ls")
    assert re.match(said, line)
    assert "s3cret" not in line


@pytest.mark.parametrize(("settings", "said"), [BAD[0], BAD[3]])
def test_a_server_with_a_bad_setting(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    shell = Shell(tmp_path, **({"port": "0", "data_dir": str(tmp_path / "data")} | settings))
    assert re.match(said, shell.fails(5, "serve"))


def test_the_help_says_which_redis_it_is_where_none_is_named(lonely: Shell) -> None:
    shown = " ".join(lonely.says("ls", "--help").replace("│", " ").split())
    assert "default: the private Redis that `serve` starts" in shown


def test_a_user_without_a_name_and_a_home(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: object) -> None:
        raise KeyError("no such user")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "XDG_DATA_HOME", "PROGRESS_DATA_DIR"):
        shell.env.pop(name, None)
    shell.says("publish", "a", "--create")
    assert shell.says("cancel", "a") == "a: not started yet, now cancelled\n"
    del shell.env["PROGRESS_REDIS_URL"]
    assert "no Redis found" in shell.fails(5, "ls")
    shell.env["PROGRESS_DATA_DIR"] = "~/data"
    assert f"{shell.folder}/~/data" in shell.fails(5, "ls")


def test_no_redis_at_all(lonely: Shell) -> None:
    assert "start `progress-broker serve`" in lonely.fails(5, "ls")


def test_a_stale_address_of_an_embedded_redis(lonely: Shell) -> None:
    lonely.env["PROGRESS_DATA_DIR"] = str(lonely.folder)
    (lonely.folder / "address").write_text("unix://:password@/nowhere/redis.sock\n")
    assert "start `progress-broker serve`" in lonely.fails(5, "show", "a")


@pytest.mark.parametrize("command", ["serve --port", "demo --port", "replay a.ndjson --serve"])
def test_a_port_in_use(lonely: Shell, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = lonely.fails(5, *command.split(), port)
    assert line.startswith(f"can't listen on 127.0.0.1:{port}")
    assert "another port" in line
    assert not (lonely.folder / "data").exists()


BAD_KEYS = [
    ({"jwt_key": "a secret of 32 bytes or more, as it has to be"}, "PROGRESS_JWT_KEY has no effect"),
    ({"auth": "jwt"}, "PROGRESS_AUTH=jwt needs a key to verify tokens with"),
    ({"auth": "jwt", "jwt_key": "short"}, "PROGRESS_JWT_KEY"),
    ({"auth": "jwt", "api_keys": "/nowhere/keys.toml"}, "can't read the key file /nowhere/keys.toml"),
    ({"auth": "callback"}, "PROGRESS_CALLBACK_URL"),
    ({"tls_cert": "/nowhere/cert.pem", "tls_key": "/nowhere/key.pem"}, "can't use TLS"),
]


@pytest.mark.parametrize(("settings", "said"), BAD_KEYS)
def test_keys_that_can_not_be_used(settings: dict[str, str], said: str) -> None:
    with pytest.raises(SetupError, match=said):
        check(make_settings(**settings))


@pytest.mark.parametrize("command", [("serve",), ("serve", "--processes", "2"), ("demo",)])
def test_they_are_told_before_a_redis_is_started(lonely: Shell, command: tuple[str, ...]) -> None:
    lonely.env |= {"PROGRESS_AUTH": "jwt", "PROGRESS_PORT": "0"}
    done = lonely.run(*command)
    assert done.returncode == 5
    assert done.stderr.startswith("progress-broker: PROGRESS_AUTH=jwt needs a key to verify tokens with")
    assert not (lonely.folder / "data").exists()


def test_an_address_of_another_machine(lonely: Shell) -> None:
    line = lonely.fails(5, "serve", "--insecure", "--host", "192.0.2.1", "--port", "0")
    assert line == (
        "can't listen on 192.0.2.1:0 (Cannot assign requested address):"
        " choose a --host that is an address of this machine"
    )


def test_a_setting_that_is_misspelled(lonely: Shell) -> None:
    assert misspelled(["PROGRESS_QUUX", "progress_host", "PROGRESS_PORT", "PATH"]) == [
        "unknown setting PROGRESS_QUUX is ignored"
    ]
    lonely.env["PROGRESS_JWT_AUDIENCES"] = "us"
    (lonely.folder / ".env").write_text("PROGRESS_TICKETS=1\n")
    told = lonely.run("serve", "--insecure", "--host", "192.0.2.1", "--port", "0").stderr
    assert "unknown setting PROGRESS_JWT_AUDIENCES is ignored: did you mean PROGRESS_JWT_AUDIENCE?" in told
    assert "unknown setting PROGRESS_TICKETS" in told


def test_the_help_of_the_server_has_every_setting(lonely: Shell) -> None:
    lonely.env["COLUMNS"] = "250"
    shown = lonely.says("serve", "--help")
    missing = {name for name in Settings.model_fields if f"--{name.replace('_', '-')} " not in shown}
    secrets = {"jwt_key", "ticket_secret", "callback_secret"}
    assert missing == secrets | {"url", "token", "token_file"}  # which servers ignore
    assert all(f"PROGRESS_{name.upper()}" in shown for name in secrets)


def test_a_list_is_an_option(lonely: Shell) -> None:
    line = lonely.fails(5, "serve", "--trusted-proxies", "10.0.0.7,nginx")
    assert line.startswith("invalid settings: PROGRESS_TRUSTED_PROXIES: 'nginx' is not an IP address or network")


def test_an_open_address_without_authentication(shell: Shell) -> None:
    assert "--insecure" in shell.fails(5, "serve", "--host", "0.0.0.0", "--port", "0")


def test_a_redis_with_other_lanes(shell: Shell) -> None:
    shell.says("ls", "--json")
    assert "set up with 16 lanes" in shell.fails(5, "serve", "--port", "0", "--lanes", "4")


def test_a_redis_that_evicts(shell: Shell, tmp_path: Path) -> None:
    with RealRedis(tmp_path / "r", options=("--maxmemory-policy", "allkeys-lru")) as redis:
        line = shell.fails(5, "serve", "--port", "0", "--redis-url", redis.url)
        assert "set maxmemory-policy noeviction" in line
        assert shell.fails(5, "ls", "--redis-url", redis.url) == line


def test_a_redis_that_wants_a_password(shell: Shell, tmp_path: Path) -> None:
    with RealRedis(tmp_path / "r", port=free_port()) as redis:
        import redis as library

        with library.Redis.from_url(redis.url) as client:
            client.config_set("requirepass", "right")
        wrong = redis.url.replace("//", "//:s3cret@")
        for url in (redis.url, wrong):
            line = shell.fails(5, "ls", "--redis-url", url)
            assert "password" in line.lower() or "authentication" in line.lower()
            assert "s3cret" not in line


def test_wrong_usage(shell: Shell) -> None:
    for words in (["nonsense"], ["ls", "--status", "odd"], ["publish", "a"], ["show"], ["serve", "--port", "x"]):
        done = shell.run(*words)
        assert done.returncode == 2, words
        assert done.stderr


def test_help_tells_the_exit_codes_and_every_setting(shell: Shell) -> None:
    assert "Exit codes" in shell.says("--help")
    text = shell.says("serve", "--help")
    for option in ("--host", "--redis-url", "--history-length", "--insecure", "--stuck-timeout-s"):
        assert option in text
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", shell.says("--version"))
