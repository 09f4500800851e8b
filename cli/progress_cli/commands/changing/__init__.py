"""Commands that change what replicas do: one module for each."""
