"""`serve`: one process or many, and who supervises them."""
