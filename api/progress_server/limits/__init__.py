"""How much one client may ask for: rates, places, bodies, and handshakes at a time."""
