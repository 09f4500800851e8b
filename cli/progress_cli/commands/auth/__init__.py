"""`auth`: tokens, API keys and revocations."""
