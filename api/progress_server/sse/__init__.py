"""Server-sent events: reading a stream's query, encoding its events, and sending them to the client."""
