"""Faults of the settings of this machine: misspelled names, keys and files that can't be used, weak rights."""

import json
from pathlib import Path
from typing import Any

from tests.cli.conftest import Shell
from tests.servers import RealRedis, free_port


def found(shell: Shell, *words: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return what is found at the settings, by check, level and place."""
    only = [word for check in ("settings", "keys", "rights") for word in ("--only", check)]
    done = shell.run("doctor", "--timeout", "60", "-o", "json", *only, *words)
    assert done.stderr == ""
    return {(it["check"], it["level"], it["at"]): it for it in json.loads(done.stdout)}


def test_names_and_sources(good: Any, good_redis: RealRedis, folder: Path) -> None:
    shell = Shell(folder, redis_url=good_redis.url, retention="5", jwt_leway_s="3")
    (folder / ".env").write_text("PROGRESS_PREFIX=pb\nPROGRESS_REDIS_URL=redis://here\n")
    assert "rights" not in {check for check, _, _ in found(shell)}
    (folder / ".env").write_text("PROGRESS_PREFIX=pb\nPROGRESS_TOKEN=secret\n")
    (folder / ".env").chmod(0o644)
    told = found(shell, "--data-dir", str(folder))
    assert [key[:2] for key in told] == [("settings", "warning"), ("rights", "warning"), ("settings", "good")]
    assert "chmod 600 .env" in told["rights", "warning", ".env"]["fix"]
    sources = told["settings", "good", "settings"]["found"]
    assert "secret" not in sources
    assert "PROGRESS_DATA_DIR (option), PROGRESS_PREFIX (.env), PROGRESS_REDIS_URL (environment)" in sources
    assert good_redis.url not in sources


def test_each_misspelled_name_is_told_with_the_near_one(good: Any, good_redis: RealRedis, folder: Path) -> None:
    shell = Shell(folder, redis_url=good_redis.url, jwt_leway_s="3", no_such_thing="1")
    done = shell.run("doctor", "--timeout", "60", "--only", "settings")
    assert done.returncode == 1
    near, far = [line for line in done.stdout.splitlines() if line.startswith("warning")]
    assert "PROGRESS_JWT_LEWAY_S is ignored" in near
    assert "did you mean PROGRESS_JWT_LEEWAY_S?" in near
    assert "correct its name" in far


def test_keys_and_files(good: Any, good_redis: RealRedis, folder: Path) -> None:
    keys, key = folder / "keys.toml", folder / "tls.key"
    keys.write_text("keys = 5\n")
    keys.chmod(0o666)
    key.write_text("no key\n")
    key.chmod(0o644)
    jwks = f"http://127.0.0.1:{free_port()}/jwks"
    wrong = Shell(
        folder,
        redis_url=good_redis.url,
        auth="jwt",
        api_keys=str(keys),
        jwt_jwks=jwks,
        tls_key=str(key),
        tls_cert=str(folder / "none.pem"),
    )
    told = found(wrong)
    assert "auth key" in told["keys", "fault", "PROGRESS_API_KEYS"]["fix"]
    assert "can't be reached" in told["keys", "fault", "PROGRESS_JWT_JWKS"]["found"]
    assert "start what answers there" in told["keys", "fault", "PROGRESS_JWT_JWKS"]["fix"]
    assert "PEM files" in told["keys", "fault", "PROGRESS_TLS_CERT"]["fix"]
    assert f"chmod go-w {keys}" in told["rights", "warning", "PROGRESS_API_KEYS"]["fix"]
    assert f"chmod 600 {key}" in told["rights", "warning", "PROGRESS_TLS_KEY"]["fix"]
    short = Shell(folder, redis_url=good_redis.url, auth="jwt", jwt_key="too short")
    assert "32 bytes" in found(short)["keys", "fault", "PROGRESS_JWT_KEY"]["fix"]
    alone = Shell(folder, redis_url=good_redis.url, auth="jwt")
    assert "correct the settings" in found(alone)["keys", "fault", "PROGRESS_AUTH"]["fix"]
    right = Shell(folder, redis_url=good_redis.url, auth="jwt", jwt_key="0123456789abcdef" * 2)
    assert {level for _, level, _ in found(right)} == {"good"}
