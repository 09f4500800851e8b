"""Opens operations: what has to be done at the broker before their reports can be sent."""
