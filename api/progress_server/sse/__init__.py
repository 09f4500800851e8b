"""Server-sent events: a query becomes a stream, a stream becomes bytes."""
