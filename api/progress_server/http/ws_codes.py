"""Close codes (RFC 6455, 7.4): what a socket's end means to its client."""

from progress_server.http.problems import PASSING, STATUS_OF_CODE

ENDED = 1000
"""Nothing will follow: don't come back."""

REPLACED = 4009
"""A newer connection has taken its place: don't come back."""

ABUSE = 1008
"""The client says what it must not, again and again."""

_BROKEN, _RESTART, _LATER = 1011, 1012, 1013
_OURS = 4000  # and on: free for applications


def close_code(reason: str) -> int:
    """Return the code for a problem, or for a reason to come back later."""
    if reason == "draining":
        return _RESTART
    status = STATUS_OF_CODE.get(reason)
    if status is None or reason in PASSING:
        return _LATER
    return _OURS + status - 400 if status < 500 else _BROKEN  # 4001 unauthenticated, 4004 not found, 4010 gone
