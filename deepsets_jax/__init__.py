"""Learning from multi-modal sets: ragged batches, any modality absent.

The names below are imported when they are first used, so that a part needs only what it
is built on: `deepsets_jax.ragged` needs jax and numpy.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Where each public name lives: a module, or an attribute of one.
_PUBLIC = {
  "Batch": "ragged",
  "Ragged": "ragged",
  "attention": "ragged.attention",
  "explain": "analysis.explanation",
  "ordering": "ragged.ordering",
  "pool": "ragged.pooling",
  "pooling": "ragged.pooling",
  "ragged": "ragged",
  "segments": "ragged.segments",
}


def __getattr__(name: str) -> Any:
  if name not in _PUBLIC:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  module = importlib.import_module(f"{__name__}.{_PUBLIC[name]}")
  is_module = _PUBLIC[name].rpartition(".")[2] == name
  return module if is_module else getattr(module, name)


def __dir__() -> list[str]:
  return sorted([*globals(), *_PUBLIC])
