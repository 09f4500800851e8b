"""Finds variables that look like settings but are not, so that a misspelled limit or audience is noticed."""

import os
from collections.abc import Iterable
from difflib import get_close_matches

from dotenv import dotenv_values

from progress_broker.settings import Settings

_PREFIX = "PROGRESS_"


def misspelled(names: Iterable[str] | None = None) -> list[str]:
    """Return a line for each unknown `PROGRESS_…` name; by default of the environment and `.env`."""
    known = {name.upper() for name in Settings.model_fields}
    unknown = sorted(
        name
        for name in ({*os.environ, *dotenv_values(".env")} if names is None else names)
        if name.upper().startswith(_PREFIX) and name.upper().removeprefix(_PREFIX) not in known
    )
    return [f"unknown setting {name} is ignored{_meant(name.upper().removeprefix(_PREFIX), known)}" for name in unknown]


def _meant(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.8)
    return f": did you mean {_PREFIX}{close[0]}?" if close else ""
