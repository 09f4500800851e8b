"""The model and Redis: what an operation is, how its events are stored, and how a replica reads and hands them on."""
