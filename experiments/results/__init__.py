"""Generators of the tables in RESULTS.md, one module for each group of sections."""
