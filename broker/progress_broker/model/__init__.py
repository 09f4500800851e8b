"""What operations, events and grants are. No I/O."""
