"""Redis: connections, keys, scripts, and the meaning of its errors."""
