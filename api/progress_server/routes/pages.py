"""The pages: the dashboard, the API's reference, and the files that both are made of."""

from typing import Any

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

import progress_web
from progress_server.middleware import security_headers


class Pages(StaticFiles):
    """Static files with a page's headers: browsers ask whether they changed, so that no page mixes two releases."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a file's response."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(security_headers.PAGE)
        return response


def mount_pages(app: FastAPI) -> None:
    """Let an app serve the pages."""
    pages = progress_web.directory()

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def dashboard() -> Response:
        return FileResponse(pages / "dashboard" / "index.html", headers=security_headers.PAGE)

    @app.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    async def reference() -> Response:
        return FileResponse(pages / "reference" / "index.html", headers=security_headers.PAGE)

    for folder in ("client", "dashboard", "reference"):
        app.mount(f"/web/{folder}", Pages(directory=pages / folder), name=folder)
