"""Snakemake and DVC on one graph: what ran, and what is therefore fresh."""
