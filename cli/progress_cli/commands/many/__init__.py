"""Commands on many operations: one module for each."""
