"""The web pages: the dashboard, the API reference, and their static files."""

from typing import Any

from fastapi import FastAPI, Request
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

import progress_web
from progress_server.http.answers import has_current
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

    def is_not_modified(self, response_headers: Headers, request_headers: Headers) -> bool:
        """Return whether the client has the current file."""
        if "if-none-match" in request_headers:
            return has_current(request_headers, response_headers["etag"])
        return super().is_not_modified(response_headers, request_headers)


def mount_pages(app: FastAPI) -> None:
    """Add the pages to an app."""
    pages = progress_web.directory()
    files = {folder: Pages(directory=pages / folder) for folder in ("client", "dashboard", "reference")}

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def dashboard(request: Request) -> Response:
        return await files["dashboard"].get_response("index.html", request.scope)

    @app.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    async def reference(request: Request) -> Response:
        return await files["reference"].get_response("index.html", request.scope)

    for folder, its_files in files.items():
        app.mount(f"/web/{folder}", its_files, name=folder)
