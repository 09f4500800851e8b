"""Whatever the API's description allows or forbids is asked of a real server, which answers nothing but what it says.

`make test` asks in all ways as anybody, and what is drawn at random as others; `make fuzz` asks in all ways as all of
them, and for longer. What labels may hold beyond ASCII no pattern can say; so with all of Unicode a rejection of
what the description allows is let pass, and nothing else is.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest

from tests.servers import START_S, ApiReplica, RealRedis

DEEP = "PROGRESS_FUZZ_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("PROGRESS_FUZZ_EXAMPLES", "3"))
SEED = os.environ.get("PROGRESS_FUZZ_SEED", "1")
DEADLINE_S = 600 + 10 * EXAMPLES  # it hangs, then; what it takes on a busy machine says nothing
CONFIG = Path(__file__).with_name("schemathesis.toml")
COMMAND = Path(sys.executable).with_name("schemathesis")

SECRET = "a secret that is long enough for HS256, and for tests"
GUARD = {"auth": "jwt", "jwt_key": SECRET, "requests_per_s": 0, "sent_bytes_per_s": 0}
LET_PASS = ("--exclude-checks", "positive_data_acceptance")
ALL = "examples,coverage,fuzzing,stateful"
RUNS: dict[str, tuple[dict[str, object], str, tuple[str, ...]]] = {  # who asks whom, in which ways, and how
    "anybody": ({}, ALL, ("--generation-codec", "ascii")),
    "anybody, in all of Unicode": ({}, "fuzzing", ("--generation-codec", "utf-8", *LET_PASS)),
    "who has proved who they are": (GUARD, "fuzzing,stateful", ("--generation-codec", "ascii")),
    # A stranger is told nothing, not even which methods there are.
    "who has not": (GUARD, "fuzzing", ("--generation-codec", "ascii", "--exclude-checks", "unsupported_method")),
}


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ApiReplica, list[str]]]:
    """A replica whose streams and long polls end soon, as the client waits for their end; and options."""
    settings, ways, options = RUNS[request.param]
    soon = {"stream_max_age_s": 0.05, "max_long_poll_s": 0.05, "drain_s": 0.5}
    claims = {"sub": "alice", "grants": [{"actions": ["admin"]}], "exp": time.time() + 2 * DEADLINE_S}
    proof = f"Authorization: Bearer {jwt.encode(claims, SECRET, 'HS256')}"
    headers = ["--header", proof] if "has proved" in request.param else []
    with RealRedis(tmp_path / "redis") as redis, ApiReplica(redis.url, tmp_path / "log", **soon, **settings) as replica:
        yield replica, ["--phases", ALL if DEEP else ways, *options, *headers]


@pytest.mark.timeout(DEADLINE_S + 2 * START_S)  # what bounds it is its own deadline
def test_the_description_is_kept(run: tuple[ApiReplica, list[str]], tmp_path: Path) -> None:
    replica, how = run
    options = [*how, "--max-examples", str(EXAMPLES), "--seed", SEED]
    done = subprocess.run(
        [COMMAND, "--config-file", CONFIG, "run", f"{replica.url}/openapi.json", *options, "--no-color"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    for complaint in ("Traceback", "ERROR"):
        assert complaint not in replica.output(), replica.output()[-4000:]
