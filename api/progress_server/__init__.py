"""The HTTP edge: operations as resources, their events as server-sent events. FastAPI lives here and nowhere else."""
