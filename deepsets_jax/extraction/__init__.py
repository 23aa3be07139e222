"""Pretrained encoders that turn raw data into elements, once, before any training."""

from deepsets_jax.extraction.protocol import Extractor, Extraction
from deepsets_jax.extraction.registry import EXTRACTORS, build

__all__ = ["EXTRACTORS", "Extractor", "Found", "build"]
