"""Programs that build data: the embedded files, TFDS data sets and synthetic data."""
