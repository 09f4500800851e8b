"""Requests to a server: credentials, TLS, timeouts, and its errors as ours. Needs the extra `http`."""

from progress_broker.extras import require

require("http", "PROGRESS_URL")
