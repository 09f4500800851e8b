"""Metrics, traces, and what the log must not show."""
