"""What an extractor is: a picture or a text in, any number of elements out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np


@dataclasses.dataclass(frozen=True)
class Extraction:
  """What was found in one input: any number of elements, none included.

  Attributes:
    vectors: `[n, d]` float32.
    boxes: `[n, 4]` float32: left, top, right, bottom, as shares of width and height;
      None where elements have no place.
    scores: `[n]` float32, or None.
    strings: `n` strings, or None: OCR lines, class names, sentences.
  """

  vectors: np.ndarray
  boxes: np.ndarray | None = None
  scores: np.ndarray | None = None
  strings: Sequence[str] | None = None


class Extractor(Protocol):
  """Turns inputs into elements.

  Attributes:
    name: Of the column, "faces" say.
    kind: Of its inputs: `[h, w, 3]` uint8 RGB arrays, or strings.
    dimension: `d`.
    fingerprint: Digest of weights and settings: part of a cache's key.
    licence: Of the weights, one line.
  """

  name: str
  kind: Literal["image", "text"]
  dimension: int
  fingerprint: str
  licence: str

  def __call__(
    self, batch: Sequence[np.ndarray] | Sequence[str]
  ) -> list[Extraction]: ...
