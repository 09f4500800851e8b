"""Finds variables that look like settings but are not, so that a misspelled limit or audience is noticed."""

import os
from collections.abc import Iterable
from difflib import get_close_matches

from dotenv import dotenv_values

from progress_broker.settings import Settings


def misspelled(names: Iterable[str] | None = None) -> list[str]:
    """Return a line for each unknown `PROGRESS_…` name; by default of the environment and `.env`."""
    known = [f"PROGRESS_{name.upper()}" for name in Settings.model_fields]
    unknown = sorted(
        name
        for name in ({*os.environ, *dotenv_values(".env")} if names is None else names)
        if name.upper().startswith("PROGRESS_") and name.upper() not in known
    )
    return [f"unknown setting {name} is ignored{_meant(name.upper(), known)}" for name in unknown]


def _meant(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.8)
    return f": did you mean {close[0]}?" if close else ""
