"""The audit of requests: who changed what over HTTP, whether it was done or rejected."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from progress_broker.access.audit import Audit, AuditEntry
from progress_server.auth.principal import principal_in
from progress_server.limits.slots import address_of
from progress_server.middleware.access_log import REQUEST_ID

READING = frozenset({"GET", "HEAD", "OPTIONS"})

ACTIONS = {
    "POST /v1/operations": "create",
    "POST /v1/workers/create": "create",
    "DELETE /v1/operations/{id}": "delete",
    "POST /v1/operations/{id}/cancel": "cancel",
    "POST /v1/operations/{id}/signals": "signal",
    "PATCH /v1/operations/{id}": "retain",
    "POST /v1/operations:cancel": "cancel",
    "POST /v1/operations:signal": "signal",
    "POST /v1/operations:purge": "purge",
    "POST /v1/revocations": "revoke",
    "DELETE /v1/revocations": "restore",
    "POST /v1/session": "sign-in",
    "DELETE /v1/session": "sign-out",
    "DELETE /v1/admin/streams/{connection}": "kick",
    "PUT /v1/admin/limits/{principal:path}": "limit",
    "DELETE /v1/admin/limits/{principal:path}": "unlimit",
    "POST /v1/admin/reload": "reload",
    "POST /v1/admin/drain": "drain",
    "PUT /v1/admin/retention": "retention",
    "POST /v1/import": "import",
}
"""What each call that changes something is in the audit."""

NOT_AUDITED = {
    "POST /v1/operations/{id}/events": "the events of a worker are the operation's own history",
    "POST /v1/workers/publish": "likewise",
    "POST /v1/workers/view": "it only reads",
    "POST /v1/workers/signals": "it only reads",
    "POST /v1/operations/{id}/tickets": "a ticket lets its caller read what it may read anyway, for a minute",
    "POST /v1/tickets": "likewise",
}
"""The other calls that are no GET, and why they are not in the audit."""

_NOTE = "audit"
"""The key among the `state` of a connection's scope."""


def note(scope: Scope, target: str, detail: str = "") -> None:
    """Say what a request is about, where its path does not tell, and more about it."""
    scope.setdefault("state", {})[_NOTE] = target, detail


class AuditMiddleware:
    """Middleware that records the requests that change something, when their response begins."""

    def __init__(self, app: ASGIApp, audit: Audit) -> None:
        self._app, self._audit = app, audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and record it before its response is sent."""
        if scope["type"] != "http" or scope["method"] in READING:
            await self._app(scope, receive, send)
            return

        async def recording(message: Message) -> None:
            if message["type"] == "http.response.start" and (entry := entry_of(scope, message["status"])) is not None:
                await self._audit.record(entry)
            await send(message)

        await self._app(scope, receive, recording)


def entry_of(scope: Scope, status: int) -> AuditEntry | None:
    """Return the entry of a request that got this status; None if it is not audited."""
    route = getattr(scope.get("route"), "path", "")
    action = ACTIONS.get(f"{scope['method']} {route}")
    if action is None:
        return None
    target, detail = scope["state"].get(_NOTE, ("", ""))
    principal = principal_in(scope)
    return AuditEntry(
        who="" if principal is None else principal.name,
        via="http",
        action=action,
        target=target or ",".join(map(str, scope.get("path_params", {}).values())),
        result="ok" if status < 400 else scope["state"].get("rejected", str(status)),
        address=address_of(scope),
        request=REQUEST_ID.get(),
        detail=detail,
    )
