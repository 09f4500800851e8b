"""Commands that move, keep and replay operations: one module for each."""
