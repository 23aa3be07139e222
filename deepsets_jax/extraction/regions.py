"""Regions of a picture: windows that the network classifies with confidence.

Square windows of three sizes cover the picture evenly, with half of each overlapping
the next, and the network of `efficientnet` classifies each. A window stays if its class
is probable and no more probable window overlaps much of it (non-maximum suppression).
This is a sliding-window detector (Sermanet et al., 2014) with an ImageNet classifier
that was not trained on boxes: the regions say what is where, but do not outline
objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from deepsets_jax.extraction import boxes, efficientnet, weights
from deepsets_jax.extraction.protocol import Extraction
from deepsets_jax.foundation.errors import ConfigError

# Sizes of windows as fractions of the shorter side.
_SIZES = (0.75, 0.5, 0.33)
# Most windows along a side; in a long strip they are wider apart.
_WINDOWS = 16


class Regions:
  """The regions of pictures, most certain first.

  Args:
    score: Least probability of a region's class, 0 to 1.
    overlap: Largest intersection over union with a better region, 0 to 1.
    count: Largest number of regions in a picture.
  """

  name, kind = "regions", "image"
  dimension, licence = efficientnet.DIMENSION, efficientnet.LICENCE

  def __init__(self, *, score: float = 0.4, overlap: float = 0.2, count: int = 16):
    if not (0 <= score <= 1 and 0 <= overlap <= 1 and count >= 1):
      raise ConfigError(
        f"score={score}, overlap={overlap}, count={count}: score and overlap must be"
        " from 0 to 1, and count at least 1"
      )
    self._score, self._overlap, self._count = score, overlap, count
    self._network = efficientnet.load_network()
    settings = dict(score=score, overlap=overlap, count=count)
    self.fingerprint = weights.fingerprint(
      [self._network.path], extractor="regions 1", **settings
    )

  def __call__(self, batch: Sequence[np.ndarray]) -> list[Extraction]:
    boxes.check_pictures(batch)
    return [self._find(picture) for picture in batch]

  def _find(self, picture: np.ndarray) -> Extraction:
    places = windows(*picture.shape[:2])
    vectors, scores, names = self._network(efficientnet.crops(picture, places))
    sure = np.flatnonzero(scores >= self._score)
    limits = dict(overlap=self._overlap, count=self._count)
    kept = sure[boxes.suppress_overlaps(places[sure], scores[sure], **limits)]
    strings = [names[i] for i in kept]
    return Extraction(vectors[kept], places[kept], scores[kept], strings)


def windows(height: int, width: int) -> np.ndarray:
  """Boxes of the windows in a picture of this size in pixels, `[n, 4]`."""
  found = []
  for size in _SIZES:
    side = size * min(height, width)
    tops, lefts = _starts(height, side), _starts(width, side)
    found += [(x, y, x + side, y + side) for y in tops for x in lefts]
  shape = np.array([width, height, width, height])
  return np.minimum(np.array(found) / shape, 1).astype(np.float32)


def _starts(length: int, side: float) -> np.ndarray:
  """Starts of windows that cover a length with at least half of each overlapping."""
  count = min(math.ceil((length - side) / (side / 2)) + 1, _WINDOWS)
  return np.linspace(0, length - side, count)
