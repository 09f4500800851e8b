"""A subscription's life as a response: over an adopted connection where the server offers it, else over ASGI."""

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from api.adopted_outlet import AdoptedOutlet, UnframedOutlet
from api.adoption import ADOPTION, Offer
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
        offer: Offer | None = scope.get("extensions", {}).get(ADOPTION)
        if offer is None:
            await self._over_asgi(scope, receive, send)
        elif not await self._adopted(offer, scope, send):
            await self._over_asgi(scope, receive, _without_head(send))

    async def _adopted(self, offer: Offer, scope: Scope, send: Send) -> bool:
        """Send the head, and give the subscription its socket; return whether it has got it."""
        chunks = scope["http_version"] != "1.0"
        if not chunks:
            offer.without_chunks()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _ADOPTED_HEADERS})
            connection = await offer.adopt(self._limit)
            if connection is None:
                return False
            outlet = AdoptedOutlet if chunks else UnframedOutlet
            self._subscription.attach(outlet(self._subscription, connection))
        except BaseException:
            self._subscription.close("refused")
            raise
        return True

    async def _over_asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        await AsgiStream(self._subscription, self._limit)(scope, receive, send)


def _without_head(send: Send) -> Send:
    async def send_body(message: Message) -> None:
        if message["type"] != "http.response.start":
            await send(message)

    return send_body
