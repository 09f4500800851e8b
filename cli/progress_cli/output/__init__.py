"""How what is told looks in a terminal."""
