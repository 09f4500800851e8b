"""The undocumented names of uvicorn, websockets and sse-starlette that we need, and a check that they exist.

A new release may rename any of them. So each is listed here, with the reason why we need it, and a server checks the
list once, when it starts. If a name is missing, `MissingName` is logged as one line, and the feature that needs the
name is switched off: the server then uses only documented names.
"""

import dis
import inspect
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple


class Needed(NamedTuple):
    """Undocumented names of one class, or of a module if `owner` is empty; and why we need them."""

    module: str
    owner: str
    names: tuple[str, ...]
    why: str


class Feature(NamedTuple):
    """A feature that needs such names, and what happens without it."""

    needs: tuple[Needed, ...]
    without: str


class MissingName(NamedTuple):
    """A needed name that the installed package lacks. Its text is the line for the log."""

    package: str
    name: str
    why: str
    without: str

    def __str__(self) -> str:
        return (
            f"{self.package} has no {self.name}, which this server needs {self.why}: {self.without}."
            " To restore this feature, install the versions that progress-broker was tested with:"
            " pip install 'progress-broker[server]'"
        )


_HTTPTOOLS = "uvicorn.protocols.http.httptools_impl"
_SANSIO = "uvicorn.protocols.websockets.websockets_sansio_impl"

ADOPTED_CONNECTIONS = Feature(
    without="streams are served over the slower ASGI outlet, by uvicorn's own HTTP protocol,"
    " which does not bound the time that a request takes to arrive",
    needs=(
        Needed(
            "httptools",
            "",
            ("HttpParserError", "HttpParserInvalidMethodError", "HttpParserUpgrade", "HttpRequestParser", "parse_url"),
            "to parse a request again without the upgrade that it offers",
        ),
        Needed(
            "httptools",
            "HttpRequestParser",
            ("feed_data", "get_http_version", "get_method", "set_dangerous_leniencies", "should_upgrade"),
            "to parse a request again without the upgrade that it offers",
        ),
        Needed(_HTTPTOOLS, "", ("STATUS_LINE",), "to answer a request whose head is too large"),
        Needed(
            _HTTPTOOLS,
            "HttpToolsProtocol",
            (
                "connection_lost",
                "connection_made",
                "data_received",
                "on_body",
                "on_headers_complete",
                "on_message_begin",
                "on_message_complete",
                "on_response_complete",
                "on_url",
            ),
            "to bound requests, and to offer a connection to the application once its head is read",
        ),
        Needed(
            _HTTPTOOLS,
            "HttpToolsProtocol",
            ("handle_websocket_upgrade", "headers", "logger", "parser", "scope", "url", "ws_protocol_class"),
            "to decide which upgrades are accepted",
        ),
        Needed(
            _HTTPTOOLS,
            "HttpToolsProtocol",
            ("loop", "send_400_response", "timeout_keep_alive_task"),
            "to reject a request that is too large or too slow",
        ),
        Needed(
            _HTTPTOOLS,
            "HttpToolsProtocol",
            ("_unset_keepalive_if_required", "connections", "cycle", "flow", "pipeline", "server_state", "transport"),
            "to take a connection over from it",
        ),
        Needed(
            _HTTPTOOLS,
            "RequestResponseCycle",
            (
                "chunked_encoding",
                "disconnected",
                "flow",
                "message_event",
                "response_complete",
                "response_started",
                "send",
                "transport",
            ),
            "to end a response at its head when its connection is taken over",
        ),
        Needed(
            _HTTPTOOLS,
            "HttpToolsProtocol",
            ("app", "app_state", "asgi_version", "client", "root_path", "scheme", "server", "tasks"),
            "to let the application reject a request that can't be read",
        ),
        Needed(
            _HTTPTOOLS,
            "RequestResponseCycle",
            ("keep_alive", "more_body", "waiting_for_100_continue"),
            "to end a connection whose client waits to be told to send a body",
        ),
        Needed(
            "uvicorn.protocols.http.flow_control",
            "FlowControl",
            ("drain", "resume_reading", "write_paused"),
            "to wait until the head has left",
        ),
        Needed("uvicorn.server", "ServerState", ("connections", "total_requests"), "to be counted as a connection"),
    ),
)

BOUNDED_WEBSOCKETS = Feature(
    without="WebSockets are served by uvicorn's own protocol, which does not bound what a hostile client sends,"
    " and does not cut one that reads nothing",
    needs=(
        Needed("uvicorn.protocols.utils", "", ("ClientDisconnected",), "to say that a client has gone"),
        Needed(
            _SANSIO,
            "WebSocketsSansIOProtocol",
            ("data_received", "handle_connect", "handshake_complete", "handshake_initiated", "scope"),
            "to end handshakes that can't be read, and to offer the application to cut a connection",
        ),
        Needed(
            _SANSIO,
            "WebSocketsSansIOProtocol",
            ("close_sent", "close_timer", "keepalive_timeout", "loop", "send", "transport"),
            "to cut a client that reads nothing",
        ),
        Needed(
            _SANSIO,
            "WebSocketsSansIOProtocol",
            (
                "curr_msg_data_type",
                "frames",
                "handle_cont",
                "handle_parser_exception",
                "queue",
                "send_receive_event_to_app",
            ),
            "to bound the messages that wait",
        ),
        Needed(_SANSIO, "WebSocketsSansIOProtocol", ("conn", "logger"), "to keep secrets out of the log"),
        Needed("websockets.server", "ServerProtocol", ("debug", "logger"), "to keep secrets out of the log"),
        Needed("websockets.server", "ServerProtocol", ("data_to_send", "fail"), "to close with a reason"),
        Needed("websockets.frames", "", ("Frame",), "to bound the messages that wait"),
        Needed("websockets.http11", "", ("Request",), "to read a handshake"),
    ),
)

DRAINING_SERVER = Feature(
    without="streams are still sent away before the server stops, but requests that are under way then"
    " have less time, and a second SIGTERM does not end it at once",
    needs=(
        Needed(
            "uvicorn.server",
            "Server",
            ("handle_exit", "shutdown", "startup"),
            "to send streams away before it stops listening",
        ),
        Needed(
            "uvicorn.server",
            "Server",
            ("force_exit", "lifespan", "server_state", "started"),
            "to wait for requests, and to end at once on a second signal",
        ),
        Needed("uvicorn.server", "ServerState", ("tasks",), "to wait for requests"),
        Needed("uvicorn.lifespan.on", "LifespanOn", ("shutdown",), "to end the application on a second signal"),
    ),
)

QUIET_EVENT_SOURCE = Feature(
    without="sse-starlette looks twice a second whether the server stops, for as long as streams are open over it",
    needs=(
        Needed(
            "sse_starlette.sse",
            "EventSourceResponse",
            ("_listen_for_exit_signal",),
            "to end streams itself, without polling",
        ),
    ),
)

FEATURES = (ADOPTED_CONNECTIONS, BOUNDED_WEBSOCKETS, DRAINING_SERVER, QUIET_EVENT_SOURCE)


@cache
def missing_from(feature: Feature) -> MissingName | None:
    """Return the first name that a feature needs and that is missing; None if all exist."""
    return next(_missing(feature), None)


def _missing(feature: Feature) -> Iterator[MissingName]:
    for module, owner, names, why in feature.needs:
        package = _package(module)
        try:
            found: Any = import_module(module)
        except ImportError as error:
            # The module may exist but fail to import another one: uvicorn without httptools, for example.
            cause = "" if error.name in (None, module) else f" that can be imported ({error})"
            yield MissingName(package, f"module {module}{cause}", why, feature.without)
            continue
        if owner and not hasattr(found, owner):
            yield MissingName(package, f"{owner} (in {module})", why, feature.without)
            continue
        known = names_of(getattr(found, owner) if owner else found)
        for name in names:
            if name not in known:
                dotted = f"{owner}.{name}" if owner else name
                yield MissingName(package, f"{dotted} (in {module})", why, feature.without)


@cache
def names_of(owner: Any) -> frozenset[str]:
    """Return the attributes of a module or a class; of a class also those that its methods set on instances."""
    names = set(dir(owner))
    for kind in inspect.getmro(owner) if inspect.isclass(owner) else ():
        for method in filter(inspect.isfunction, vars(kind).values()):
            names.update(step.argval for step in dis.get_instructions(method) if step.opname == "STORE_ATTR")
    return frozenset(names)


def _package(module: str) -> str:
    name = module.partition(".")[0]
    try:
        return f"{name.replace('_', '-')} {version(name)}"
    except PackageNotFoundError:
        return name.replace("_", "-")
