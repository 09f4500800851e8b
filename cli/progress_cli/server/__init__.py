"""`serve`: one or several server processes, and their supervisor."""
