"""The operations behind a server, over HTTP."""
