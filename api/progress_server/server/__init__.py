"""The server process: listening sockets, TLS, signals, and the order in which it shuts down."""
