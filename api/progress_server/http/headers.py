"""Headers that several layers write or read."""

EVENT_STREAM = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store, no-transform",  # a proxy that compresses would hold events back until it has enough
    "X-Accel-Buffering": "no",
}
"""Of a stream of server-sent events, and of its refusal."""

CONNECTION_HEADER = b"progress-connection"
"""The header by which a stream tells what its connection is called in the log."""
