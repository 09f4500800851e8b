"""Moving operations between a Redis, a server and a file: the same records in all of them."""
