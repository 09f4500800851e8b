"""IPv4 clients of a socket that serves IPv6 too: the kernel gives them IPv6 addresses, such as `::ffff:192.0.2.1`."""

from starlette.types import ASGIApp, Receive, Scope, Send

_MAPPED = "::ffff:"


class IPv4Clients:
    """An app that sees IPv4 clients by their IPv4 address, as in the list of trusted proxies."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        client = scope.get("client")
        if client is not None and client[0].startswith(_MAPPED):
            scope["client"] = (client[0].removeprefix(_MAPPED), client[1])
        await self._app(scope, receive, send)
