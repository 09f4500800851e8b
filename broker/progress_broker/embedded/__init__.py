"""The embedded Redis: a private server for development on one machine."""
