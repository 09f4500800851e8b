"""Replaced: a connection is ended for good, as a newer one of the same identifier has come."""

import asyncio

from progress_broker.stream.frames import Frame
from progress_broker.stream.outlet import NO_OUTLET
from progress_broker.stream.stream import Mode, Stream

NAME = b"replaced"
"""The event's name, and its id: a client that comes back after it says so, and is told that nothing will follow."""

_HEAD = b"id: replaced\nevent: replaced\ndata: "
FRAME = Frame(0, b"", NAME, _HEAD + b"{}\n\n", len(_HEAD))

_AGAIN_S = 0.1


def replace(stream: Stream) -> None:
    """End it, and tell its client not to come back. One whose way out is yet to open is ended when it has."""
    if stream.mode is Mode.CLOSED:
        return
    if stream.outlet is NO_OUTLET:
        asyncio.get_running_loop().call_later(_AGAIN_S, replace, stream)
        return
    stream.outlet.write(stream.outlet.encoding.encode((FRAME,)))
    stream.close("replaced")
