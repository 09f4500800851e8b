"""The master of a Sentinel set: asked for at each connect, and left as soon as a sentinel announces another one."""
