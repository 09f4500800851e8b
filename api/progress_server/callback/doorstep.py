"""The doorstep: the limits of an address and of a replica, kept before a back end is asked about a stranger.

Elsewhere who is nobody is refused at once, and takes no place. Here that is found out by asking somebody else, so each
question has its place first. It is the address' until it is known whose it is
(`api/progress_server/limits/middleware.py`).
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from progress_broker.errors import AtCapacity, RateLimited, TooManyStreams
from progress_broker.limits.limiter import Limiter
from progress_broker.runtime.tally import Tally
from progress_server.http.paths import opens_a_stream, waits
from progress_server.http.refusals import refuse
from progress_server.limits.addresses import address_of
from progress_server.limits.slots import holding
from progress_server.limits.threshold import Threshold


class Doorstep:
    """Middleware before the replica's gate, where the many of one address would leave no room for others."""

    def __init__(self, app: ASGIApp, threshold: Threshold, limiter: Limiter, tally: Tally) -> None:
        self._app, self._threshold, self._limiter, self._tally = app, threshold, limiter, tally

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in; one that opens a stream, or waits for long, has a place then."""
        opens = opens_a_stream(scope)
        if not (opens or waits(scope)):
            await self._app(scope, receive, send)
            return
        address = address_of(scope)
        try:
            if opens:  # other calls cost a question only now and then, and then are counted
                self._threshold.step_over(address)
            room = self._limiter.room(address)
        except (AtCapacity, RateLimited, TooManyStreams) as fault:
            self._tally.refused[fault.code] += 1
            await refuse(fault, scope, receive, send)
            return
        with holding(scope, room):
            await self._app(scope, receive, send)
