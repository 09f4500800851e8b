"""The Lua scripts."""

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Final

from progress_broker.nodes.calls import Script

SCHEMA: Final = 2
"""The version of the data in Redis and of the scripts' arguments. docs/protocol.md says when it changes."""


VERBS: dict[str, str] = {}
"""The name of each script in metrics, by its SHA-1."""


def _read(file: str) -> str:
    return files("progress_broker.storage").joinpath("lua", f"{file}.lua").read_text("utf-8")


_PRELUDE = _read("prelude")


def _load(verb: str, file: str = "", *, includes: Sequence[str] = ()) -> Script:
    """Return the script in a file, with the files that it includes. `verb` is its name in metrics."""
    header, _, body = _read(file or verb).partition("\n\n")  # first in the text: it says how the script is called
    included = "".join(f"{_read(name)}\n" for name in includes)
    text = f"{header}\n\nlocal SCHEMA = '{SCHEMA}'\n{_PRELUDE}{included}{body}"
    script = Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())
    VERBS[script.sha] = verb
    return script


META = _load("meta")
CREATE = _load("create")
PUBLISH = _load(
    "publish",
    includes=(
        "append",
        "producers",
        "joined",
        "counts",
        "metadata",
        "older_events",
        "event_rules",
        "publish_arguments",
        "publish_snapshot",
    ),
)
DELETE = _load("delete")
SIGNAL = _load("signal")
CHILDREN = _load("children")
FIND = _load("find", "search")
LAPSED = _load("lapsed", "expired_leases")
KEPT = _load("kept")
SWEEP = _load("sweep")
REPAIR = _load("repair")
WALK = _load("walk", includes=("filters",))
COUNT = _load("count", includes=("filters",))
RETAIN = _load("retain")
KEEP = _load("keep")
SET_FIELDS = _load("set_fields")
PROBE = _load("probe")
SPEND = _load("spend", "settle_rate")
HOLD = _load("hold", "report_streams")
DENY = _load("deny")
STAGE = _load("stage")
ADOPT = _load("adopt", includes=("feed_end",))
MIRROR = _load("mirror", includes=("feed_end", "older_events"))
MIRROR_FEED = _load("mirror_feed", includes=("feed_end",))
CLAIM = _load("claim")
