"""Read the columns of a table as modalities and a label, as a spec says."""
