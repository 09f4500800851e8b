"""From the feeds in Redis to the subscriptions of a replica."""
