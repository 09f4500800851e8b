"""Variables that look like settings and are none: a limit or an audience that is not kept, with nobody the wiser."""

import os
from collections.abc import Iterable
from difflib import get_close_matches

from dotenv import dotenv_values

from progress_broker.settings import Settings


def misspelled(names: Iterable[str] | None = None) -> list[str]:
    """Return a line for each `PROGRESS_…` name that sets nothing; without names, of the environment and `.env`."""
    known = [f"PROGRESS_{name.upper()}" for name in Settings.model_fields]
    strangers = sorted(
        name
        for name in ({*os.environ, *dotenv_values(".env")} if names is None else names)
        if name.upper().startswith("PROGRESS_") and name.upper() not in known
    )
    return [f"{name} is no setting, and does nothing{_meant(name.upper(), known)}" for name in strangers]


def _meant(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=0.8)
    return f": is {close[0]} meant?" if close else ""
