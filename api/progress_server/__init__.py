"""The HTTP edge: operations as resources, their events as server-sent events. FastAPI lives here and nowhere else."""

from progress_broker.extras import require

require("server", "progress_server")
