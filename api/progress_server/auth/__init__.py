"""Authentication: how callers prove who they are."""
