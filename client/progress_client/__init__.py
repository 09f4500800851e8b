"""For programs that read operations: over HTTP (`PROGRESS_URL`), or in Redis (`PROGRESS_REDIS_URL`)."""
