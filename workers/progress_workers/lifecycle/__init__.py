"""How an operation begins: it is created, started or taken over, and its parent is notified."""
