"""The end of credentials: they expire or are revoked, and then the streams that were opened with them end."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from progress_broker.access.deny_list import DenyList
from progress_broker.hub import Hub
from progress_broker.operations.store import Store
from progress_broker.runtime.tasks import Tasks
from progress_broker.storage.versioned import Copy
from progress_broker.stream.delivery import Delivery
from progress_server.auth.principal import ANONYMOUS, Principal


class RevocationCheck:
    """Checks whether credentials are revoked or expired. Revocations are known only within `running`."""

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._denied: DenyList | None = None

    @asynccontextmanager
    async def running(self, store: Store, hub: Hub, *others: Copy) -> AsyncIterator[None]:
        """Share the deny list with the other replicas of a store, and end the streams of principals on it.

        `others` are read together with it.
        """
        denied, tasks = DenyList(store, self._period_s), Tasks()
        self._denied = denied
        tasks.keep_running(lambda: denied.run(lambda: self._end_streams(hub), *others))
        try:
            yield
        finally:
            await tasks.close()

    def is_revoked(self, principal: Principal) -> bool:
        """Return whether a principal, or its token, is revoked."""
        return self._denied is not None and self._denied.is_revoked(principal.name, principal.token_id)

    def is_expired_or_revoked(self, principal: Principal) -> bool:
        """Return whether the credentials of a principal are revoked or expired."""
        expires_at = principal.expires_at
        return self.is_revoked(principal) or (expires_at is not None and expires_at <= time.time())

    def _end_streams(self, hub: Hub) -> None:
        for connection in (*hub.connections, *hub.bundles, *hub.replays):
            if connection.holder is not None and self.is_revoked(connection.holder):
                connection.close("revoked", reconnect=True)
        for channel in hub.channels:
            for subscription in tuple(channel.subscriptions):
                holder = subscription.delivery.holder
                if holder is not None and self.is_revoked(holder):
                    subscription.close("revoked", reconnect=True)


def bind_to_principal(delivery: Delivery, principal: Principal, hub: Hub) -> Delivery:
    """Return a delivery that ends when its principal's credentials expire, and can be found when they are revoked."""
    if principal is ANONYMOUS:
        return delivery
    if principal.expires_at is None:
        return replace(delivery, holder=principal)
    return replace(delivery, holder=principal, deadline=hub.clock() + principal.expires_at - time.time())
