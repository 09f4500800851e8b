"""Copies of a whole Redis, which follow it until servers and workers go over to the copy."""
