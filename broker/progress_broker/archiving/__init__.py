"""Keeping ended operations outside Redis, and backups of all."""
