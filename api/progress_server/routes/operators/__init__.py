"""The calls of the HTTP API for operators: one module for each group."""
