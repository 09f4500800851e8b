"""The security page's answers to threats name tests that exist; what no other file shows is shown here."""

import re
from pathlib import Path

from tests.cases import case

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
PAGES = [path for path in (ROOT / "web").rglob("*") if path.suffix in (".js", ".mjs", ".html", ".css", ".jsx")]
SHIPPED = [path for path in PAGES if "tests" not in path.relative_to(ROOT / "web").parts]


def test_tests_are_named() -> None:
    assert len(NAMED) > 30


def test_each_test_that_is_named_exists() -> None:
    for file, name in NAMED:
        with case(file, name):
            assert re.search(rf"^ *(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


def test_pages_make_text_of_what_they_are_told() -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTML|srcdoc"
    code = r"\beval\(|new Function|set(?:Timeout|Interval)\(['\"`]|javascript:|dangerouslySet| on\w+="
    assert {path: found for path in SHIPPED if (found := re.findall(f"{ways}|{code}", path.read_text()))} == {}


def test_pages_load_nothing_from_elsewhere() -> None:
    markup = r"""(?:src|href)=["']?(?:https?:)?//"""
    code = r"""(?:from|import\(?)\s*["']https?:"""
    style = r"""@import\s+(?:url|["'])|url\(["']?(?:https?:)?//"""
    parts = f"{markup}|{code}|{style}"
    assert {path: found for path in SHIPPED if (found := re.findall(parts, path.read_text()))} == {}
