"""Keeping Snakemake and DVC of one mind: what ran, and what is therefore fresh."""
