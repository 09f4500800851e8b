"""Callers of a Django app, by Django's own sessions: `Progress(authenticate=session_user)`."""

from asgiref.sync import sync_to_async
from django.contrib.auth import aget_user
from django.contrib.sessions.middleware import SessionMiddleware
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse
from starlette.requests import HTTPConnection

from progress_server.auth.principal import Principal

_sessions = SessionMiddleware(lambda _: HttpResponse())


async def session_user(connection: HTTPConnection) -> Principal | None:
    """Return the user who is signed in, until the session expires; None if nobody is.

    The user may read and cancel the operations whose owner is the user's name (`get_username`).
    """
    request = HttpRequest()
    request.COOKIES = dict(connection.cookies)
    _sessions.process_request(request)
    try:
        user = await aget_user(request)
        if not user.is_authenticated:
            return None
        ends = await request.session.aget_expiry_date()
        return Principal(user.get_username(), expires_at=ends.timestamp())
    finally:
        await sync_to_async(close_old_connections)()  # as at the end of each request of Django's
