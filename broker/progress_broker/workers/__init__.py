"""What a server does for workers that have no Redis: their publishes, what they read, and the signals they wait for."""
