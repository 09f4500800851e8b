"""The browser's side: `client/`, ES modules that follow operations, `dashboard/`, the page made of them, and
`reference/`, the page that shows the API's description.

Plain files without a build step. Whoever serves them mounts the three folders below `/web/`, `dashboard/index.html` at
`/` and `reference/index.html` at `/docs`.
"""

from pathlib import Path


def directory() -> Path:
    """Return the folder that holds them."""
    return Path(__file__).resolve().parent
