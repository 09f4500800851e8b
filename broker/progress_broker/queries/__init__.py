"""Finding operations: what a query chooses, and the pages that show it."""
