"""Learning from multi-modal sets: ragged batches, any modality absent."""

__version__ = "0.1.0"
