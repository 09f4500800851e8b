"""The data model: operations, events and grants. No I/O."""
