"""Commands that show what replicas and workers do: one module for each."""
