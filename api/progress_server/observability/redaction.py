"""Redaction: secrets that a query string carries don't come into logs."""

import logging
import re
from urllib.parse import unquote

_SECRETS = frozenset({"ticket", "access_token", "token"})
_PARAMETER = re.compile(r"""([\w%]+)=[^&\s"'#]+""")


def redacted(text: str) -> str:
    """Return a text with each secret's value replaced."""
    return _PARAMETER.sub(_redacted, text) if "=" in text else text


def _redacted(parameter: re.Match[str]) -> str:
    name = parameter[1]
    return f"{name}=***" if unquote(name).lower() in _SECRETS else parameter[0]


class Redaction(logging.Filter):
    """Lets every record pass, redacted; its arguments keep their places, which formatters such as uvicorn's rely on."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact a record's texts."""
        if isinstance(record.msg, str):
            record.msg = redacted(record.msg)
        if isinstance(record.args, tuple):
            record.args = tuple(redacted(it) if isinstance(it, str) else it for it in record.args)
        return True


REDACTION = Redaction()


def redact_requests() -> None:
    """Redact what uvicorn logs of requests, whoever runs it; as often as called, it is done once."""
    for name in ("uvicorn.access", "uvicorn.error"):
        logging.getLogger(name).addFilter(REDACTION)
