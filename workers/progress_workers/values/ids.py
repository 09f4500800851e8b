"""Ids: turns any text into the id of an operation; the same text always gives the same id."""

import hashlib
import re

from progress_broker.model.operation import OPERATION_ID
from progress_workers.values.texts import text

_LONGEST = 128


def operation_id(name: object) -> str:
    """Return a valid operation id for a name: the name itself, if it is valid.

    Otherwise each invalid character is written as `~`, its code point in hexadecimal digits and a dot (`a b` becomes
    `a~20.b`). An id that is too long is cut and ends in its SHA-256.
    """
    found = name if type(name) is str else text(name)
    if re.fullmatch(OPERATION_ID, found):
        return found
    fitting = re.sub(r"[^A-Za-z0-9._-]", lambda char: f"~{ord(char[0]):x}.", found)
    if not re.match(r"[A-Za-z0-9]", fitting):
        fitting = f"task{fitting}"
    return fitted(fitting, found)


def fitted(fitting: str, whole: str, most: int = _LONGEST) -> str:
    """Return a text if it is short enough; otherwise its beginning and the SHA-256 of `whole`, the full text."""
    if len(fitting) <= most:
        return fitting
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{fitting[: most - len(digest) - 1]}~{digest}"
