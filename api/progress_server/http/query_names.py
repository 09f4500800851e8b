"""Query parameters: a call rejects unknown names and repeated names, so that neither a typo nor a value is ignored."""

from collections.abc import Callable, Collection, Coroutine
from typing import Any, get_origin
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.routing import APIRoute

from progress_broker.errors import InvalidInput

POSITION = "last_event_id"

_POSITIONS = frozenset({"lasteventid", "evslasteventid"})
"""Names that EventSource polyfills give the position, because they can't set a header: `lastEventId`
(event-source-polyfill), `lastEventID` and `Last-Event-ID` (Mercure's clients), `evs_last_event_id`
(eventsource-polyfill). Compared in lower case, without `-` and `_`."""

_FOR_OTHERS = frozenset({"ticket", "token", "access_token", "evs_buffer_size_limit", "evs_preamble"})
"""Names that any call accepts: credentials, which authentication handles, and what eventsource-polyfill adds."""

_SHOWN = 100


def values_of(
    query: bytes, names: Collection[str], lists: Collection[str] = (), *, others: bool = False
) -> dict[str, Any]:
    """Return a query's values; those in `lists` as lists. Raise `InvalidInput` for unknown or repeated names.

    With `others` unknown names are allowed: a back end receives the URL and may use them.
    """
    values: dict[str, Any] = {}
    seen = set()
    for given, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        name = given if given in names else _meant(given, names)
        if name is not None and name in lists:
            values.setdefault(name, []).append(value)
            continue
        if given in seen:
            raise InvalidInput(f"query parameter {given[:_SHOWN]!r} appears more than once; send it once", field=name)
        seen.add(given)
        if name is None:
            if not others:
                raise _unknown(given, names)
        elif name in names and (
            value or name != POSITION
        ):  # with two spellings the last wins: a polyfill appends the newer position
            values[name] = value
    return values


def position_in(query: bytes) -> str | None:
    """Return the position in a query, under any of its names."""
    names = (POSITION,)
    given = [value for name, value in parse_qsl(query.decode("latin-1")) if POSITION in (name, _meant(name, names))]
    return given[-1] if given else None


def _meant(given: str, names: Collection[str]) -> str | None:
    if given in _FOR_OTHERS:
        return given
    is_position = POSITION in names and given.lower().replace("-", "").replace("_", "") in _POSITIONS
    return POSITION if is_position else None


def _unknown(given: str, names: Collection[str]) -> InvalidInput:
    name = given[:_SHOWN]
    takes = f"this call accepts {', '.join(sorted(names))}" if names else "this call accepts none"
    return InvalidInput(f"unknown query parameter {name!r}: {takes}", field=name)


class CheckedRoute(APIRoute):
    """A route that rejects query parameters which it does not declare."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, with the check before it."""
        answer = super().get_route_handler()
        taken = {field.alias: get_origin(field.field_info.annotation) is list for field in self.dependant.query_params}
        lists = frozenset(name for name, is_list in taken.items() if is_list)

        async def checked(request: Request) -> Response:
            if query := request.scope["query_string"]:
                values_of(query, taken, lists)
            return await answer(request)

        return checked
