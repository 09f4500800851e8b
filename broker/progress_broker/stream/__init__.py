"""One client's stream: its position, what it is sent, and when."""
