"""Exports as lines of a file or of a request: written, read, compressed."""
