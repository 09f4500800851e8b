"""What `publish` reads from standard input: events, and what `tail --json` printed."""
