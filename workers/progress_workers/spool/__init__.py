"""Reports on disk that could not be sent, so that they outlast their worker."""
