"""Formats output for terminals and pipes."""
