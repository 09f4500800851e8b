"""A command that is run in the foreground, on behalf of who typed it: its signals, its terminal, its outcome."""
