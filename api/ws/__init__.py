"""The same events over a WebSocket (RFC 6455), as JSON text messages: one operation, or many on one connection."""
