"""Headers that keep browsers from making more of an answer than it is."""

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
    "trusted-types": "progress-broker",  # which names the page's own worker, whatever it is given
}

PAGE = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _PAGE_POLICY.items()),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Of a page, and of what it is made of: all of it is ours, and it is asked each time whether it has changed."""

_ANSWER = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of all that does not say otherwise. What is told of operations is for who asked, not for a cache."""

_HTTPS_ONLY = {"Strict-Transport-Security": f"max-age={365 * 86_400}"}


class AnswerHeaders:
    """Middleware that adds these headers to every answer, streams and refusals too."""

    def __init__(self, app: ASGIApp, *, https_only: bool) -> None:
        self._app = app
        headers = _ANSWER | (_HTTPS_ONLY if https_only else {})
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer with the headers it lacks."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = self._headers

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = {name for name, _ in message["headers"]}
                lacking = [header for header in headers if header[0] not in said]
                message["headers"] = [*message["headers"], *lacking]
            await send(message)

        await self._app(scope, receive, send_with_headers)
