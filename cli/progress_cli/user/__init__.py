"""What belongs to the user who runs commands, in their home."""
