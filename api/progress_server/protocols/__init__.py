"""The protocols of connections: HTTP and WebSocket. All use of undocumented names of uvicorn and websockets is here."""
