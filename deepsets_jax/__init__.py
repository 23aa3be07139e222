"""Learning from multi-modal sets: ragged batches, any modality absent.

The names below are imported when they are first used, so that a part needs only what it
is built on: `deepsets_jax.ragged` needs jax and numpy.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> its module, and the attribute where that has another name; the module
# itself where the last part of its path is the name.
_PUBLIC = {
  "Batch": "ragged",
  "Ragged": "ragged",
  "attend": "ragged.attention",
  "attention": "ragged.attention",
  "build_model": "models.set_model:build_set_model",
  "default_config": "tasks.defaults:supervised",
  "explain": "analysis.explanation",
  "fit": "tasks.fit:train_and_evaluate",
  "load": "tasks.trained:load_trained",
  "ordering": "ragged.ordering",
  "pool": "ragged.pooling",
  "pooling": "ragged.pooling",
  "ragged": "ragged",
  "segments": "ragged.segments",
}


def __getattr__(name: str) -> Any:
  if name not in _PUBLIC:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  path, _, attribute = _PUBLIC[name].partition(":")
  module = importlib.import_module(f"{__name__}.{path}")
  if not attribute and path.rpartition(".")[2] == name:
    return module
  return getattr(module, attribute or name)


def __dir__() -> list[str]:
  return sorted([*globals(), *_PUBLIC])
