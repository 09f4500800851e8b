"""Requests that the server itself sends: for a key set, and to the back end of `PROGRESS_AUTH=callback`."""

import httpx

UNPACKED = {"Accept-Encoding": "identity"}
"""A packed response could be small on the wire and huge in memory."""


async def read_body(response: httpx.Response, most_bytes: int) -> bytes:
    """Return the body of a streamed response; raise `ValueError` as soon as it is larger than it may be."""
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > most_bytes:
            raise ValueError(f"its answer is over {most_bytes} bytes")
    return bytes(body)
