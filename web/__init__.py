"""The browser's side: `client/`, ES modules that follow operations, and `dashboard/`, the page made of them.

Plain files without a build step. Whoever serves them mounts the two folders below `/web/` and
`dashboard/index.html` at `/`.
"""

from pathlib import Path


def directory() -> Path:
    """Return the folder that holds `client` and `dashboard`."""
    return Path(__file__).resolve().parent
