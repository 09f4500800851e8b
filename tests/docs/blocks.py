"""The fenced blocks of the pages, and what HTML comments before them say about how to check them.

| comment | meaning |
|---|---|
| `<!-- not run: why -->` | only the syntax of the next block is checked |
| `<!-- file: name -->` | the next block is saved as this file, in the page's folder |
| `<!-- background: URL -->` | the next block runs until the page ends; go on when this URL answers, if there is one |
| `<!-- exit code: 3 -->` | the next block ends with this exit code |
| `<!-- output -->` | the next block is the output of the block before; `…` stands for anything |
| `<!-- hidden sh` … `-->` | a block that readers do not see; `browser` opens a page and uses it, `output` is as above |
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_KNOWN = ("not run", "file", "background", "exit code", "output")
_PARTS = re.compile(
    r"^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$"
    r"|^<!-- hidden (?P<hidden>\w+)\n(?P<hidden_text>.*?)^-->$"
    r"|^<!-- (?P<name>[^:\n]+?)(?::\s*(?P<value>[^\n]*?))? -->$",
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Block:
    """A block of a page, the line it begins in, and what the comments before it say."""

    language: str
    text: str
    line: int
    notes: dict[str, str] = field(default_factory=dict)


def blocks_of(page: str) -> list[Block]:
    """Return the blocks of a page's text. Raise `ValueError` for a comment that says nothing known."""
    found: list[Block] = []
    notes: dict[str, str] = {}
    for part in _PARTS.finditer(page):
        line = page.count("\n", 0, part.start()) + 1
        if name := part["name"]:
            if name not in _KNOWN:
                raise ValueError(f"line {line}: unknown comment {name!r}; there are: {', '.join(_KNOWN)}")
            notes[name] = part["value"] or ""
        else:
            language, text = part["hidden"] or part["language"], part["hidden_text"] or part["text"]
            found.append(Block(language, text, line, notes))
            notes = {}
    if notes:
        raise ValueError(f"no block follows the comment {notes}")
    return found
