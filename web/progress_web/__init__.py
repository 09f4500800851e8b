"""The browser part: `client/` has ES modules that follow operations, `dashboard/` is the page that uses them, and
`reference/` is the page that shows the OpenAPI description.

They are plain files without a build step. A server mounts the three folders below `/web/`, and serves
`dashboard/index.html` at `/` and `reference/index.html` at `/docs`.
"""

from pathlib import Path


def directory() -> Path:
    """Return the folder that holds these files."""
    return Path(__file__).resolve().parent
