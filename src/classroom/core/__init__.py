"""What decides every training: batches, networks, losses, metrics."""
