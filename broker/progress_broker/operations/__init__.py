"""Requests to Redis: create, publish, read, list and end operations."""
