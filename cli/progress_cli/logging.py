"""The log of a server: lines for people, or JSON objects, one per line, for machines."""

import json
import logging
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import orjson

from progress_broker.settings import Settings
from progress_cli.exit_codes import PRINTER
from progress_server.middleware.access_log import REQUEST_ID
from progress_server.observability.logs import REDACTION

log = logging.getLogger(__name__)

_LEVELLED = (None, "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
"""The loggers with the level of the settings: the root, and uvicorn's."""
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
"""The attributes of every record, and uvicorn's coloured copy of the message. All others are fields from `extra`."""


class PlainLines(logging.Formatter):
    """Lines for people. Each begins with the local time and its zone (RFC 3339)."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the time of a record."""
        return datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(timespec="milliseconds")


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, logger, message, process, request, extra fields, and an error."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OWN and name not in line}
        if request := REQUEST_ID.get():
            line.setdefault("request", request)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # lone surrogates, numbers beyond 64 bits, objects that contain themselves
            plain = {name: it if isinstance(it, int) else _readable(it) for name, it in line.items()}
            return json.dumps(plain, ensure_ascii=False)


def log_as(settings: Settings, who: str = "") -> None:
    """Log to standard error, including uvicorn's lines. `who` is put into each line for people."""
    if settings.log_format == "json":
        log_for_machines(settings.log_level)
    else:
        _log_by(PlainLines(f"%(asctime)s %(levelname)s: {who}%(name)s: %(message)s"), settings.log_level)


def prepare_level(settings: Settings) -> Callable[[], None]:
    """Return what takes the log level of new settings."""

    def take() -> None:
        for name in _LEVELLED:
            logging.getLogger(name).setLevel(settings.log_level.upper())

    return take


def log_for_machines(level: str = "info") -> None:
    """Write everything that this process prints as lines of JSON: also information, errors and its last exception."""
    _log_by(JsonLines(), level)
    logging.captureWarnings(capture=True)
    PRINTER.set(log.log)
    sys.excepthook = _died
    threading.excepthook = lambda hooked: _broke(hooked.exc_type, hooked.exc_value, hooked.exc_traceback)
    sys.unraisablehook = lambda hooked: _broke(hooked.exc_type, hooked.exc_value, hooked.exc_traceback)


def _log_by(formatter: logging.Formatter, level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    handler.addFilter(REDACTION)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in ("httpx", "httpcore"):  # they would log every request to a back end, with its address
        logging.getLogger(name).setLevel(logging.WARNING)


def _died(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("unexpected error: this process ends", exc_info=(kind, error, trace))


def _broke(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None and not issubclass(kind, SystemExit):  # a thread may end itself with it
        log.error("unexpected error outside the main program; the process continues", exc_info=(kind, error, trace))


def _readable(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()
