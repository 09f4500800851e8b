"""The process that listens: sockets, TLS, signals."""
