"""The multi-modal transformer of Gabeur et al. (2020) for text-to-video retrieval."""
