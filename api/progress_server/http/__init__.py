"""Shared by all requests: paths, bodies, queries, and the format of errors."""
