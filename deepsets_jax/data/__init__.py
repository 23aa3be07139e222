"""Data sets as columnar tables, and batches of their rows."""
