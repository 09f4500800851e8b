"""Showing the events of an operation again, at their own pace or faster."""
