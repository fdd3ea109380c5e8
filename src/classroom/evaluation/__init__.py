"""From predictions to numbers. Nothing here needs torch."""
