"""What is kept of an operation: its log, and the older events."""
