"""Programs that build data sets: the embedded files, TFDS data sets, synthetic data."""
