"""What operators ask, of a server or of Redis itself."""
