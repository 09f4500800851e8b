"""How a block of each language is run, or checked in another way."""

import ast
import json
import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import yaml
from playwright.sync_api import Browser

from tests.docs.blocks import ROOT, Block, blocks_of
from tests.docs.session import SERVER_PORT, Session
from tests.servers import need


def parse_json(text: str) -> None:
    """A block is a value, the members of an object, or a value on each line."""
    for one in ([text], [f"{{{text}}}"], text.splitlines()):
        try:
            for part in one:
                json.loads(part)
            return
        except ValueError:
            pass
    json.loads(text)


def parse_with(*command: str) -> Callable[[str], None]:
    def parse(text: str) -> None:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    return parse


SYNTAX: dict[str, Callable[[str], object]] = {
    "python": ast.parse,
    "sh": parse_with("bash", "-n"),
    "js": lambda text: parse_with(need("node", "nodejs"), "--input-type=module", "--check", "-")(text),
    "html": lambda text: None,
    "json": parse_json,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
    "text": lambda text: None,
    "browser": lambda text: None,
    "output": lambda text: None,
}


def matches(pattern: str, text: str) -> bool:
    return bool(
        re.fullmatch(".*?".join(re.escape(part) for part in pattern.strip().split("…")), text.strip(), re.DOTALL)
    )


def check(block: Block, name: str, session: Session, before: str) -> str:
    """Run or parse a block; return what it prints."""
    notes = block.notes
    assert block.language in SYNTAX, f"no way to check a block of {block.language!r}: label it, or add one"
    SYNTAX[block.language](block.text)
    if "output" in notes or block.language == "output":
        assert matches(block.text, before), f"the block before printed\n{before}"
    elif "not run" in notes:
        assert notes["not run"], "say why it is not run"
    elif "file" in notes:
        session.save(notes["file"], block.text)
    elif "background" in notes:
        session.background(block.text, notes["background"])
    elif block.language == "python":
        return session.python(name, block.text)
    elif block.language == "sh":
        return session.shell(block.text, int(notes.get("exit code", 0)))
    elif block.language == "js":
        return session.node(block.text)
    elif block.language == "browser":
        session.browse(block.text)
    else:
        assert block.language != "html", "html has to be a file, for a browser to open"
    return ""


def check_page(page: Path, folder: Path, browser: Callable[[], Browser]) -> None:
    """Run or parse the blocks of a page, in order; the first that fails is named."""
    blocks = blocks_of(page.read_text())
    serves = any(f":{SERVER_PORT}/" in it.notes.get("background", "") for it in blocks)
    with Session(folder / "page", browser, own_server=serves) as session:
        printed = ""
        for block in blocks:
            name = f"{page.relative_to(ROOT)}:{block.line}"
            try:
                printed = check(block, name, session, printed)
            except Exception as error:
                raise AssertionError(f"{name}: {error}") from error
