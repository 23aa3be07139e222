"""The extractors by name; a module is imported when its extractor is built."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from deepsets_jax.extraction.protocol import Extractor
from deepsets_jax.extraction.weights import EXTRA
from deepsets_jax.foundation.errors import ConfigError


def _lazy(module: str, kind: str) -> Callable[..., Extractor]:
  def make(**settings: Any) -> Extractor:
    return getattr(importlib.import_module(f"{__package__}.{module}"), kind)(**settings)

  return make


EXTRACTORS: Mapping[str, Callable[..., Extractor]] = {
  "image": _lazy("efficientnet", "Image"),
  "regions": _lazy("regions", "Regions"),
  "faces": _lazy("faces", "Faces"),
  "lines": _lazy("lines", "Lines"),
  "sentences": _lazy("texts", "Sentences"),
  "static_words": _lazy("texts", "StaticWords"),
  "onnx": _lazy("onnx", "Onnx"),
}


def build_extractor(name: str, /, **settings: Any) -> Extractor:
  """The extractor of this name.

  Args:
    name: One of `EXTRACTORS`.
    **settings: Arguments of its class.

  Raises:
    ConfigError: There is none of this name.
    TypeError: A setting is no argument of its class.
    ModuleNotFoundError: A package that it needs is not installed; the message says how
      to get it.
  """
  if name not in EXTRACTORS:
    raise ConfigError(f"no extractor {name!r}; there are {', '.join(EXTRACTORS)}")
  try:
    return EXTRACTORS[name](**settings)
  except ModuleNotFoundError as error:
    advice = "" if EXTRA in str(error) else f": {EXTRA}"
    raise ModuleNotFoundError(
      f"extractor {name!r}: {error}{advice}", name=error.name
    ) from error
