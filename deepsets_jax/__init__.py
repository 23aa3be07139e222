"""Learning from multi-modal sets: ragged batches, any modality absent."""

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
  """`explain`, imported when asked for: it needs jax, and this package does not."""
  if name == "explain":
    from deepsets_jax.explanation import explain

    return explain
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
