"""The HTTP API: operations as resources, and their events as server-sent events.

Only this package uses FastAPI.
"""

from progress_broker.extras import require

require("server", "progress_server")
