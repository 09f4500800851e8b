"""The audit: a record of who changed what. Each entry is a line of the log `progress_broker.audit`."""

import logging
from typing import Literal, NamedTuple

log = logging.getLogger("progress_broker.audit")

Via = Literal["http", "ws", "redis", "signal"]


class AuditEntry(NamedTuple):
    """What somebody did. Its time is that of the line."""

    who: str
    """The principal; for a command on Redis itself, the user and the host. Empty: it is not known."""
    via: Via
    action: str
    """Such as `cancel` or `revoke`."""
    target: str
    """What it was done to, such as an operation's id."""
    result: str = "ok"
    """`ok`, or the code of the error."""
    address: str = ""
    """The client's address."""
    request: str = ""
    """The id of the request."""
    detail: str = ""


class Audit:
    """Records who changed what."""

    async def record(self, entry: AuditEntry) -> None:
        """Record an action that was done or rejected. It never raises, so that no action fails by its record."""
        fields = {name: value for name, value in entry._asdict().items() if value}
        log.info(
            "%s by %s: %s %s",
            entry.action,
            entry.who or "somebody",
            entry.target or "everything",
            entry.result,
            extra=fields,
        )
