"""Demo jobs that report their progress."""
