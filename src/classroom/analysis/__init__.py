"""Analyses of trained networks' features."""
