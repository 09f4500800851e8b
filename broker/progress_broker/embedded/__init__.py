"""A Redis of our own, for a laptop."""
