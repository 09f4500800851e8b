"""The carrier over HTTP: PROGRESS_URL names a server, and the worker needs no Redis. Needs the extra `http`."""
