"""Live delivery: from the feeds in Redis to a replica's subscriptions."""
