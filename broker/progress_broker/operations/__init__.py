"""What is asked of storage: create, publish, read, list, end."""
