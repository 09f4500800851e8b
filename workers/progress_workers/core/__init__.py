"""State becomes batches of entries. No I/O, no Redis."""
