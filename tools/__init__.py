"""One-off programs that build the data files of the repository."""
