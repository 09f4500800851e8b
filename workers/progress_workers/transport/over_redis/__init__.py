"""The carrier over Redis itself: publishes are calls of its scripts, and signals a blocking read."""
