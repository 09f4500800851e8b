"""Security headers: they restrict what browsers may do with a response."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PAGE_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
    "trusted-types": "progress-broker",  # this policy's `createScriptURL` can only return our own worker's URL
}

PAGE = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _PAGE_POLICY.items()),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Headers of pages and their files. All scripts and styles are our own; browsers revalidate them each time."""

_ANSWER = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Defaults for all other responses. Data about operations must not be kept by a shared cache."""

_HTTPS_ONLY = {"Strict-Transport-Security": f"max-age={365 * 86_400}"}


class SecurityHeadersMiddleware:
    """Middleware that adds these headers to every response, including streams and errors."""

    def __init__(self, app: ASGIApp, *, https_only: bool) -> None:
        self._app = app
        headers = _ANSWER | (_HTTPS_ONLY if https_only else {})
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add to its response the headers that it does not set."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = self._headers

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = dict(message["headers"])
                message["headers"] = [*message["headers"], *(header for header in headers if header[0] not in present)]
            await send(message)

        await self._app(scope, receive, send_with_headers)
