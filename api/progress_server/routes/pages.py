"""The web pages: the dashboard, the API reference, and their static files."""

from typing import Any

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

import progress_web
from progress_server.middleware import security_headers


class Pages(StaticFiles):
    """Static files with the headers of a page.

    Browsers revalidate them each time, so a page never mixes files of two releases.
    """

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return the response for a file."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(security_headers.PAGE)
        return response


def mount_pages(app: FastAPI) -> None:
    """Add the pages to an app."""
    pages = progress_web.directory()

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def dashboard() -> Response:
        return FileResponse(pages / "dashboard" / "index.html", headers=security_headers.PAGE)

    @app.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    async def reference() -> Response:
        return FileResponse(pages / "reference" / "index.html", headers=security_headers.PAGE)

    for folder in ("client", "dashboard", "reference"):
        app.mount(f"/web/{folder}", Pages(directory=pages / folder), name=folder)
