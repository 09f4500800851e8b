"""Limits per client: request rates, bytes sent, open streams, and new connections per second."""
