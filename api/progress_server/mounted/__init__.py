"""The server inside other apps: mounted in FastAPI, Starlette or any ASGI app, with that app's own authentication."""
