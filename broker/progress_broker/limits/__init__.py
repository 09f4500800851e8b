"""Limits: those that replicas share through Redis, and those of one process."""
