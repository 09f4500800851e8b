"""Redaction: secrets that a query string carries don't come into logs."""

import logging
import re

_SECRET = re.compile(r"""\b(ticket|access_token|token)=[^&\s"'#]+""", re.IGNORECASE)


def redacted(text: str) -> str:
    """Return a text with each secret's value replaced."""
    return _SECRET.sub(r"\1=***", text)


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
