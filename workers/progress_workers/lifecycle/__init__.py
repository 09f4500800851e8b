"""How an operation begins: created, started, taken over, told to its parent."""
