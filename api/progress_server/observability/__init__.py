"""Metrics, traces, and what is kept out of the log."""
