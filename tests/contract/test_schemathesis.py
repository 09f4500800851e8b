"""Whatever the API's description allows or forbids is asked of a real server, which answers nothing but what it says.

`make fuzz` asks for longer. What labels may hold beyond ASCII no pattern can say; so with all of Unicode a refusal of
what the description allows is let pass, and nothing else is.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.servers import ApiReplica, RealRedis

EXAMPLES = int(os.environ.get("PROGRESS_FUZZ_EXAMPLES", "25"))
SEED = os.environ.get("PROGRESS_FUZZ_SEED", "1")
DEADLINE_S = 120 + 10 * EXAMPLES
CONFIG = Path(__file__).with_name("schemathesis.toml")
COMMAND = Path(sys.executable).with_name("schemathesis")

TEXTS = {"ascii": (), "utf-8": ("--exclude-checks", "positive_data_acceptance")}
CALLERS: Mapping[str, tuple[str, ...]] = {"nobody": ()}
"""Who asks: the headers that say so."""


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiReplica]:
    """One whose streams and long polls end soon, as the client waits for their end."""
    folder = tmp_path_factory.mktemp("schemathesis")
    soon = {"stream_max_age_s": 0.3, "max_wait_s": 0.2, "drain_s": 0.5}
    with RealRedis(folder / "redis") as redis, ApiReplica(redis.url, folder / "log", **soon) as replica:
        yield replica.await_ready()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("caller", CALLERS)
def test_the_description_is_kept(replica: ApiReplica, caller: str, text: str, tmp_path: Path) -> None:
    headers = [word for header in CALLERS[caller] for word in ("--header", header)]
    options = [*("--generation-codec", text), *TEXTS[text], *("--max-examples", str(EXAMPLES)), *("--seed", SEED)]
    done = subprocess.run(
        [COMMAND, "--config-file", CONFIG, "run", f"{replica.url}/openapi.json", *options, *headers, "--no-color"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    for complaint in ("Traceback", "ERROR"):
        assert complaint not in replica.output(), replica.output()[-4000:]
