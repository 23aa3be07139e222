"""The columns of a table of any source as modalities and labels, by a spec."""
