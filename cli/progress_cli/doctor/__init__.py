"""What `doctor` finds through a server's URL."""
