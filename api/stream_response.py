"""A subscription's life as a response: over an adopted connection where the server offers it, else over ASGI."""

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.adopted_outlet import AdoptedOutlet
from api.adoption import ADOPTION
from api.asgi_outlet import HEADERS, AsgiStream
from broker.subscription import Subscription

_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_ADOPTED_HEADERS = [*_RAW_HEADERS, (b"connection", b"close")]


class StreamResponse(Response):
    """However it ends, the subscription ends with it."""

    def __init__(self, subscription: Subscription, limit: int) -> None:
        self.status_code = 200
        self.background = None
        self.raw_headers = _RAW_HEADERS
        self._subscription = subscription
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, or only its head when the connection is adopted."""
        subscription, limit = self._subscription, self._limit
        adopt = scope.get("extensions", {}).get(ADOPTION)
        if adopt is None:
            await AsgiStream(subscription, limit)(scope, receive, send)
            return
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _ADOPTED_HEADERS})
            connection = adopt()
            if connection is not None:
                subscription.attach(AdoptedOutlet(subscription, limit, connection))
                return
        except BaseException:
            subscription.close("refused")
            raise
        subscription.close()
