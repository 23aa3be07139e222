"""The extractors by name. A module is imported when its extractor is built."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
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
  """Build an extractor.

  Args:
    name: A key of `EXTRACTORS`.
    **settings: Arguments of its class.

  Raises:
    ConfigError: There is no extractor of this name.
    TypeError: A setting is not an argument of its class.
    ModuleNotFoundError: A required package is not installed; the message says how to
      install it.
  """
  if name not in EXTRACTORS:
    raise ConfigError(f"no extractor {name!r}; choose from {', '.join(EXTRACTORS)}")
  try:
    return EXTRACTORS[name](**settings)
  except ModuleNotFoundError as error:
    advice = "" if EXTRA in str(error) else f": {EXTRA}"
    raise ModuleNotFoundError(
      f"extractor {name!r}: {error}{advice}", name=error.name
    ) from error


def build_extractors(
  names: Sequence[str], settings: Mapping[str, Mapping[str, Any]]
) -> list[Extractor]:
  """Build several extractors, each with its settings if there are any.

  Raises:
    ConfigError: As `build_extractor`.
    ModuleNotFoundError: As `build_extractor`.
  """
  return [build_extractor(name, **settings.get(name, {})) for name in names]
