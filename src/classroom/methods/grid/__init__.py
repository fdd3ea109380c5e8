"""Searches of the weights of the variants."""
