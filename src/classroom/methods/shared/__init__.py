"""What the published methods have in common."""
