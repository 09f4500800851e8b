"""Headers that several packages write or read."""

EVENT_STREAM = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store, no-transform",  # a proxy that compresses would delay events until its buffer is full
    "X-Accel-Buffering": "no",
}
"""Headers of a stream of server-sent events, also of one that only asks the client to reconnect."""

CONNECTION_HEADER = b"progress-connection"
"""Response header with the name of the connection, as used in log lines."""
