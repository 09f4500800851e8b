"""What is wrong with a Redis, its data and its replicas, and what mends it."""
