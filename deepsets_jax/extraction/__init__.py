"""Pretrained networks that turn raw data into elements, once, before training."""

from deepsets_jax.extraction.protocol import Extraction, Extractor
from deepsets_jax.extraction.registry import EXTRACTORS, build_extractor

__all__ = ["EXTRACTORS", "Extraction", "Extractor", "build_extractor"]
