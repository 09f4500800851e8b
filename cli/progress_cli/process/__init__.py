"""Runs a command in the foreground for a user: its signals, its terminal, its outcome."""
