"""Following one or many operations over a WebSocket."""
