"""Calls of Lua scripts. No I/O happens here, so that sync and async clients can both send a call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text, and the SHA-1 under which Redis caches the script."""

    text: str
    sha: str


class Call(NamedTuple):
    """One run of a script: the script, its keys and its arguments."""

    script: Script
    keys: Sequence[str]
    args: Sequence[str | bytes]

    def command(self) -> tuple[str | bytes | int, ...]:
        """Return the EVALSHA command; on NOSCRIPT load `script.text` and send it again."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)
