"""`Accept-Encoding` (RFC 9110, 12.5.3): whether a client wants gzip."""

import re
from collections.abc import Iterable

_MEMBER = re.compile(r"\s*([^\s;]+)\s*(?:;\s*[qQ]\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?")


def accepts_gzip(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the headers of a request, their names in lower case, admit gzip, and prefer nothing to it."""
    text = ",".join(value.decode("latin-1") for name, value in headers if name == b"accept-encoding")
    if "gzip" not in text.lower() and "*" not in text:
        return False
    weights: dict[str, float] = {}
    for member in text.split(","):
        found = _MEMBER.fullmatch(member)
        if found is not None:
            weights[found[1].lower()] = float(found[2] or 1)
    weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0)))
    return weight > 0 and weight >= weights.get("identity", 0)
