"""Reads progress from a line, as people would: percentages, ratios, sizes with units, and what they are about."""

import re
from collections.abc import Iterator
from typing import NamedTuple

BYTES = "bytes"
"""The unit of sizes, whatever the line counts in."""

_COUNT = r"(\d{1,3}(?:,\d{3})+|\d{1,15})"
_SIZE = r"(\d{1,15}(?:[.,]\d{1,9})?)"
_UNIT = r"([kKMGTPE]i?(?:[Bb](?:ytes?)?)?|[Bb]ytes?|B)"
_BEFORE = r"(?<![\w.,/:-])(?<!\w=)"
"""`name=3/10` is no progress: rsync's `to-chk=3/10` says what is left."""
_RATIO = re.compile(rf"{_BEFORE}{_COUNT}(?:\s?/\s?|\s+of\s+){_COUNT}(?![\w/-]|:(?!\s|$)|[.,]\d)")
_SEPARATOR = re.compile(r"\D")
_SPACED = r"(\d{1,3}(?:[ \u00a0\u202f]\d{3})+)"
_SPACED_RATIO = re.compile(rf"{_BEFORE}{_SPACED}(?:\s?/\s?|\s+of\s+){_SPACED}(?![\w/-])")
_SIZES = re.compile(rf"{_BEFORE}{_SIZE}\s?{_UNIT}?(?:\s?/\s?|\s+of\s+)~?\s?{_SIZE}\s?{_UNIT}(?![\w/])")
_PERCENT = re.compile(r"(?<![\w.,/-])(\d{1,3}(?:[.,]\d{1,9})?)(?:/100)?\s?%(?!\w)")
"""Also `12.34/100%`, as qemu-img writes it."""
_SIZE_CELL = r"\d[\d.]*[kMGTP]?"
_CURL = re.compile(
    rf"\s*(?P<percent>\d+)\s+(?P<total>{_SIZE_CELL})\s+(?P<part>\d+)\s+(?P<current>{_SIZE_CELL})"
    rf"\s+\d+\s+{_SIZE_CELL}(?:\s+{_SIZE_CELL}){{2}}(?:\s+(?:[\d:]+|[-:]+)){{3}}\s+{_SIZE_CELL}\s*"
)
"""The meter of curl, whose columns have no signs: % Total % Received % Xferd, two speeds, three times, a speed."""

_NUMBER = re.compile(rf"(?<!\S)~?\d[\d.,]*(?::\d+)*\s?{_UNIT}?(?:/s)?(?=\s|$)")
_WORD = re.compile(r"[^\W_][\w./:-]*")
_SCALES = {letter: step + 1 for step, letter in enumerate("KMGTPE")}
MAX_RATIOS = 8
"""How many ratios in a line are compared with its percentage."""
ROUNDED = 1.0
"""How much a ratio and a percentage of the same progress may differ, in percentage points."""


class Reading(NamedTuple):
    """How far the work is, according to a line. What the line does not say is None."""

    percent: float | None = None
    current: float | None = None
    total: float | None = None
    unit: str | None = None
    label: str = ""
    """What the numbers are about: the words before them."""
    message: str | None = None
    disputed: bool = False
    """Whether a ratio beside the percentage says something else."""
    bars: int = 1
    """How many bars were added up."""

    @property
    def share(self) -> float | None:
        """How much is done, 0 to 100: by the count where there is one, because it is more exact."""
        if self.current is not None and self.total:
            return min(100.0, 100.0 * self.current / self.total)
        return None if self.percent is None else max(0.0, min(100.0, self.percent))


def read(text: str, unfinished: bool = False) -> Reading | None:
    """Return the progress in a line; None if it has none. An `unfinished` line may continue after its last number.

    A percentage outranks a ratio. The ratio is taken along if it says the same, so that people see the count.
    """
    if (meter := _CURL.fullmatch(text)) is not None:
        return _read_curl(meter)
    percent, label_end = None, len(text)
    if (found := _PERCENT.search(text)) is not None:
        percent, label_end = plain(float(found[1].replace(",", "."))), found.start()
        if percent > 100:
            percent, label_end = None, len(text)
    disputed = False
    for start, ratio in _ratios(text, unfinished):
        if percent is None or abs((ratio.share or 0.0) - percent) <= ROUNDED:
            return ratio._replace(percent=percent, label=label(text[: min(start, label_end)]))
        disputed = True
    return None if percent is None else Reading(percent, label=label(text[:label_end]), disputed=disputed)


def label(text: str) -> str:
    """Return the words of what stands before the numbers of a bar, without other numbers."""
    return " ".join(_WORD.findall(_NUMBER.sub(" ", text)))


def plain(number: float) -> float:
    """Return a whole number as an integer."""
    return int(number) if float(number).is_integer() else number


def _ratios(text: str, unfinished: bool) -> Iterator[tuple[int, Reading]]:
    """Yield where each ratio begins, and what it says: sizes first, then numbers with spaces at the thousands."""
    for pattern in (_SIZES, _SPACED_RATIO, _RATIO):
        for number, found in enumerate(pattern.finditer(text)):
            if number == MAX_RATIOS:
                break
            if unfinished and found.end() == len(text):
                continue
            if pattern is _SIZES:
                done, done_unit, whole, unit = found.groups()
                current, total, said = _bytes(done, done_unit or unit), _bytes(whole, unit), BYTES
            else:
                current, total, said = (*(int(_SEPARATOR.sub("", count)) for count in found.groups()), None)
            if 0 < total >= current:
                yield found.start(), Reading(current=current, total=total, unit=said)


def _bytes(number: str, unit: str) -> float:
    """Return a size in bytes. `k` is 1000 and `Ki` is 1024: programs differ, but the ratio is right."""
    base = 1024 if unit[1:2] == "i" else 1000
    return plain(round(float(number.replace(",", ".")) * base ** _SCALES.get(unit[0].upper(), 0)))


def _read_curl(meter: re.Match[str]) -> Reading | None:
    if not any(char in "123456789" for char in meter["total"]):
        return None  # the server did not say how large it is
    current, total = (_bytes(*_size(meter[name])) for name in ("current", "total"))
    return Reading(current=min(current, total), total=total, unit=BYTES) if total else None


def _size(cell: str) -> tuple[str, str]:
    """Return the number and the unit of a size of curl, whose `k` is 1024."""
    return (cell[:-1], f"{cell[-1]}i") if cell[-1].isalpha() else (cell, "B")
