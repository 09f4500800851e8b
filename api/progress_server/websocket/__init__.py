"""Many operations over one WebSocket."""
