"""One client's stream: its position, what is sent to it, and when."""
