"""What reports have in common."""
