"""Redis: connections, keys and scripts."""
