"""Regions of a picture: those of many windows that the network is sure about.

Square windows of three sizes lie evenly over the picture, half over one another; the
network of `efficientnet` sees each. A window stays if its class is probable and none
that is more so covers much of it (non-maximum suppression): a sliding-window detector
(Sermanet et al., 2014) with a classifier of ImageNet, which has seen no boxes. The
regions tell what is where; they are no outlines of objects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from deepsets_jax.extraction import boxes, efficientnet, weights
from deepsets_jax.extraction.protocol import Extraction
from deepsets_jax.foundation.errors import ConfigError

# Of the windows, as shares of the shorter side.
_SIZES = (0.75, 0.5, 0.33)
# Along each side of the picture, at most: those of a long strip lie wider apart.
_WINDOWS = 16


class Regions:
  """The regions of pictures, the most certain first; none where nothing is certain.

  Args:
    score: The least probability of a region's class.
    overlap: Intersection over union with a better region, above which one goes.
    count: Of regions in a picture, at most.
  """

  name, kind = "regions", "image"
  dimension, licence = efficientnet.DIMENSION, efficientnet.LICENCE

  def __init__(self, *, score: float = 0.4, overlap: float = 0.2, count: int = 16):
    if not (0 <= score <= 1 and 0 <= overlap <= 1 and count >= 1):
      raise ConfigError(
        f"score={score}, overlap={overlap}, count={count}: score and overlap are from 0"
        " to 1, count is 1 or more"
      )
    self._score, self._overlap, self._count = score, overlap, count
    self._network = efficientnet.load()
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
    kept = sure[boxes.suppress(places[sure], scores[sure], **limits)]
    strings = [names[i] for i in kept]
    return Extraction(vectors[kept], places[kept], scores[kept], strings)


def windows(height: int, width: int) -> np.ndarray:
  """The windows' boxes in a picture of this many pixels, `[n, 4]`."""
  found = []
  for size in _SIZES:
    side = size * min(height, width)
    tops, lefts = _starts(height, side), _starts(width, side)
    found += [(x, y, x + side, y + side) for y in tops for x in lefts]
  shape = np.array([width, height, width, height])
  return np.minimum(np.array(found) / shape, 1).astype(np.float32)


def _starts(length: int, side: float) -> np.ndarray:
  """Where windows begin that cover a length, at least half over one another."""
  count = min(math.ceil((length - side) / (side / 2)) + 1, _WINDOWS)
  return np.linspace(0, length - side, count)
