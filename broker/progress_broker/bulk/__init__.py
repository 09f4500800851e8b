"""Actions on many operations, which a query or a list of ids chooses."""
