"""How batches reach Redis and signals come back."""
