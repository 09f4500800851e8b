"""Reload: settings that change while a server runs. Open streams are not cut.

Each part first checks the new settings and loads what they name, such as a file of keys. Only if all parts can use
them, all take them. So a file with a fault changes nothing.
"""

import logging
from collections.abc import Callable

from pydantic import BaseModel

from progress_broker.errors import SetupError
from progress_broker.runtime.tally import Tally
from progress_broker.settings import Settings

log = logging.getLogger(__name__)

Take = Callable[[], None]
"""Uses what was prepared. It can't fail."""
Prepare = Callable[[Settings], Take]
"""Checks new settings and loads what they name; raises `SetupError`."""

RELOADED = (
    *("api_keys", "jwt_key", "jwt_jwks", "jwt_jwks_s", "jwt_algorithms", "jwt_audience", "jwt_issuer", "jwt_leeway_s"),
    *("jwt_subject_claim", "jwt_scope_claim", "jwt_grants_claim", "tls_cert", "tls_key", "log_level", "access_log"),
    *("requests_per_s", "sent_bytes_per_s", "max_streams", "max_streams_per_address", "max_streams_per_principal"),
    *("handshakes_per_s", "callback_requests_per_s"),
)
"""The settings that a reload changes. For others a server has to be started again."""


class Reloaded(BaseModel):
    """What a reload did at one replica. The files of keys and certificates were read again in any case."""

    changed: list[str]
    """The settings with other values than before."""
    restart: list[str]
    """The settings that have changed, too, but only a restart takes them."""


class Reloader:
    """Reloads the settings of one server."""

    def __init__(self, settings: Settings, reread: Callable[[], Settings], tally: Tally) -> None:
        self._settings, self.reread, self._tally = settings, reread, tally
        self._parts: list[Prepare] = []
        self.reloaded: Callable[[], None] = lambda: None
        """Called after each reload that took new settings."""

    def add(self, *parts: Prepare) -> None:
        """Add parts that take new settings."""
        self._parts += parts

    def reload(self) -> Reloaded:
        """Read the settings again, and take all of them, or none: then raise `SetupError`."""
        before = self._settings
        try:
            found = self.reread()
            after = before.model_copy(update={name: getattr(found, name) for name in RELOADED})
            if (before.tls_cert is None) is not (after.tls_cert is None):
                raise SetupError("TLS can't be turned on or off by a reload: restart the server")
            takes = [prepare(after) for prepare in self._parts]
        except SetupError as error:
            self._tally.reloads["failed"] += 1
            log.error("the settings were not reloaded, and nothing has changed: %s", error.detail)
            raise
        for take in takes:
            take()
        self._settings = after
        self._tally.reloads["succeeded"] += 1
        report = Reloaded(
            changed=[name for name in RELOADED if getattr(before, name) != getattr(after, name)],
            restart=[
                name
                for name in Settings.model_fields
                if name not in RELOADED and getattr(after, name) != getattr(found, name)
            ],
        )
        log.info("the settings were reloaded: %s", described(report), extra=report.model_dump())
        self.reloaded()
        return report


def described(report: Reloaded) -> str:
    """Return one line for people about a reload."""
    changed = f"changed: {', '.join(report.changed)}" if report.changed else "no setting has changed"
    restart = f"; only a restart takes {', '.join(report.restart)}" if report.restart else ""
    return f"keys and certificates were read again, {changed}{restart}"


async def reload_when_asked(reloader: Reloader) -> dict[str, object]:
    """Answer the question of an operator to reload."""
    return reloader.reload().model_dump()
