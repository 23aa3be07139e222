"""Columnar tables of ragged modalities, and the batches that a device takes."""
