"""The interface of extractors: a picture or a text in, any number of elements out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

# Optional parts of an `Extraction`.
PARTS = ("boxes", "scores", "strings")


@dataclasses.dataclass(frozen=True)
class Extraction:
  """The elements found in one input: `n` of them, possibly none.

  Attributes:
    vectors: `[n, d]` float32.
    boxes: `[n, 4]` float32: left, top, right and bottom as fractions of width and
      height; None if elements have no place.
    scores: `[n]` float32, or None.
    strings: `n` strings such as OCR lines, class names or sentences, or None.
  """

  vectors: np.ndarray
  boxes: np.ndarray | None = None
  scores: np.ndarray | None = None
  strings: Sequence[str] | None = None


class Extractor(Protocol):
  """Turns inputs into elements.

  Attributes:
    name: Name of the output column, such as "faces".
    kind: Kind of the inputs: `[h, w, 3]` uint8 RGB arrays, or strings.
    dimension: Size `d` of the vectors.
    fingerprint: Digest of weights and settings, part of a cache's key.
    licence: Licence of the weights, in one line.
  """

  name: str
  kind: Literal["image", "text"]
  dimension: int
  fingerprint: str
  licence: str

  def __call__(
    self, batch: Sequence[np.ndarray] | Sequence[str]
  ) -> list[Extraction]: ...
