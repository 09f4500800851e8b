"""Kinds of Redis for the tests of the store."""
