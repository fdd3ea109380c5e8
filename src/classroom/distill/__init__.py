"""What the paper is about: who learns what from whom, and the losses that say so."""
