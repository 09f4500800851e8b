"""Sends batches to Redis and receives signals."""
