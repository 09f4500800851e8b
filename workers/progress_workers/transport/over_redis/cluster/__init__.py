"""A Redis Cluster as a worker process uses it: each node by itself, so that one that hangs costs its own lanes only."""
