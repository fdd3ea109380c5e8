"""Provenance: where a number is from, and how to make it again."""
