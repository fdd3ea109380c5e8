"""From a downloaded folder to batches: sources → readers → prepare → split → batches → augment."""
