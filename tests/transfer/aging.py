"""Exports that are changed as a program might, with digests that fit."""

import re
from collections.abc import Callable
from hashlib import sha256


def edited(text: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Return an export whose lines are changed."""
    lines, of_lines, of_file = [], sha256(), sha256()
    for line in text.splitlines(keepends=True):
        if b'"k":"end"' in line:
            line = re.sub(rb'"sha256":"\w+"', b'"sha256":"%b"' % of_lines.hexdigest().encode(), line)
            of_file.update(of_lines.digest())
        elif b'"k":"eof"' in line:
            line = re.sub(rb'"sha256":"\w+"', b'"sha256":"%b"' % of_file.hexdigest().encode(), line)
        elif b'"k":"operation"' in line:
            line = change(line)
            of_lines = sha256(line)
        elif b'"k":"event"' in line:
            line = change(line)
            of_lines.update(line)
        lines.append(line)
    return b"".join(lines)


def older(text: bytes, ms: int) -> bytes:
    """Return an export as if all of it had happened so many milliseconds earlier."""

    def shift(line: bytes) -> bytes:
        return re.sub(rb"\b1[78]\d{11}\b", lambda found: b"%d" % (int(found[0]) - ms), line)

    return edited(text, shift)
