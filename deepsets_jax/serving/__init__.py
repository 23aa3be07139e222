"""Predictions, search and embeddings of a finished run."""
