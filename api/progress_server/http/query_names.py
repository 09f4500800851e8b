"""A query's names: those that a call takes. A misspelt one must not be ignored, nor one of two values be lost."""

from collections.abc import Callable, Collection, Coroutine
from typing import Any, get_origin
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.routing import APIRoute

from progress_broker.errors import Invalid

POSITION = "last_event_id"

_POSITIONS = frozenset({"lasteventid", "evslasteventid"})
"""How polyfills of EventSource name the position, as they can't set a header: `lastEventId` (event-source-polyfill),
`lastEventID` and `Last-Event-ID` (Mercure's clients), `evs_last_event_id` (eventsource-polyfill)."""

_FOR_OTHERS = frozenset({"ticket", "token", "access_token", "evs_buffer_size_limit", "evs_preamble"})
"""What any call may be sent: credentials, which authentication reads or refuses, and what the last polyfill adds."""

_SHOWN = 100


def values_of(
    query: bytes, names: Collection[str], lists: Collection[str] = (), *, others: bool = False
) -> dict[str, Any]:
    """Return a query's values by their names, those in `lists` as lists; raise `Invalid` for what the call can't take.

    With `others` names that are not known pass, as the URL is told to somebody who may know them.
    """
    values: dict[str, Any] = {}
    said = set()
    for given, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        name = given if given in names else _meant(given, names)
        if name is not None and name in lists:
            values.setdefault(name, []).append(value)
            continue
        if given in said:
            raise Invalid(f"{given[:_SHOWN]} is given more than once: give one value", field=name)
        said.add(given)
        if name is None:
            if not others:
                raise _unknown(given, names)
        elif name in names and (value or name != POSITION):  # of two spellings the polyfill's comes last, and is newer
            values[name] = value
    return values


def position_in(query: bytes) -> str | None:
    """Return the position that a query tells, however that is spelt."""
    names = (POSITION,)
    given = [value for name, value in parse_qsl(query.decode("latin-1")) if POSITION in (name, _meant(name, names))]
    return given[-1] if given else None


def _meant(given: str, names: Collection[str]) -> str | None:
    if given in _FOR_OTHERS:
        return given
    is_position = POSITION in names and given.lower().replace("-", "").replace("_", "") in _POSITIONS
    return POSITION if is_position else None


def _unknown(given: str, names: Collection[str]) -> Invalid:
    name = given[:_SHOWN]
    takes = f"this call takes {', '.join(sorted(names))}" if names else "this call takes none"
    return Invalid(f"unknown query parameter {name!r}: {takes}", field=name)


class CheckedRoute(APIRoute):
    """A call that FastAPI reads the query of, which takes no other names than those it declares."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        answer = super().get_route_handler()
        taken = {field.alias: get_origin(field.field_info.annotation) is list for field in self.dependant.query_params}
        lists = frozenset(name for name, is_list in taken.items() if is_list)

        async def checked(request: Request) -> Response:
            if query := request.scope["query_string"]:
                values_of(query, taken, lists)
            return await answer(request)

        return checked
