"""One Redis server each: connections, scripts, and what its errors mean."""
