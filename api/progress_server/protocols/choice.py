"""Chooses the protocols of a server: ours, or uvicorn's own if undocumented names that ours need are missing."""

import asyncio
import logging
from importlib import import_module

from progress_broker.settings import Settings
from progress_server.protocols import event_source  # noqa: F401 - imported before its names are looked up; the module says why
from progress_server.protocols.names import ADOPTED_CONNECTIONS, BOUNDED_WEBSOCKETS, FEATURES, missing_from

log = logging.getLogger(__name__)

ProtocolClass = type[asyncio.Protocol]

# h11's comes first: it limits a request's head, and works even if httptools, or the code that uses it, does not.
_THEIR_HTTP = ("uvicorn.protocols.http.h11_impl:H11Protocol", "uvicorn.protocols.http.auto:AutoHTTPProtocol")
_THEIR_WEBSOCKETS = (
    "uvicorn.protocols.websockets.auto:AutoWebSocketsProtocol",
    "uvicorn.protocols.websockets.websockets_impl:WebSocketProtocol",
    "uvicorn.protocols.websockets.wsproto_impl:WSProtocol",
)


def warn_of_missing_names() -> None:
    """Log a warning for each feature that this server lacks because an undocumented name is missing."""
    for feature in FEATURES:
        missing = missing_from(feature)
        if missing is not None:
            log.warning("%s", missing)


def http_protocol(settings: Settings | None = None, files: int = 0) -> ProtocolClass | str:
    """Return the value for uvicorn's option `http`.

    `settings` and `files`, the limit of open files, set its limits. Without settings it is for any app.
    """
    if missing_from(ADOPTED_CONNECTIONS) is not None:
        return _first_of(_THEIR_HTTP) or "auto"
    # Imported here, because the import needs the names.
    from progress_server.protocols.adoption import AdoptableProtocol
    from progress_server.protocols.http import Bounds

    if settings is None:
        return AdoptableProtocol.for_any_app()
    return AdoptableProtocol.within(Bounds.of(settings, files))


def websocket_protocol() -> ProtocolClass | None:
    """Return the value for uvicorn's option `ws`; None if no installed package can serve WebSockets."""
    if missing_from(BOUNDED_WEBSOCKETS) is not None:
        return _first_of(_THEIR_WEBSOCKETS)
    from progress_server.protocols.websocket import BoundedWebSocketProtocol

    return BoundedWebSocketProtocol


def _first_of(paths: tuple[str, ...]) -> ProtocolClass | None:
    for path in paths:
        module, _, name = path.partition(":")
        try:
            found: ProtocolClass | None = getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
        if found is not None:
            return found
    return None
