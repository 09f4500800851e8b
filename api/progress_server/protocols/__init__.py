"""Bytes on a connection: all use of uvicorn's and websockets' private names."""
