"""What waits to be sent, what is being sent, and what was sent a moment ago."""
