"""Encoders and decoders by name, their hook points and their weights."""
