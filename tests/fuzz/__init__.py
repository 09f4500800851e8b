"""Random writers, clients that are cut anywhere, and faults, over a real Redis: what each client was told is compared
with what was published. `make fuzz` does it for longer."""
