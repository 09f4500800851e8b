"""Turns state into batches of entries. No I/O, no Redis."""
