"""Boxes in pictures: left, top, right, bottom, as shares of width and height."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deepsets_jax.foundation.errors import ConfigError


def check_pictures(batch: Sequence[np.ndarray]) -> None:
  """Looks that these are `[h, w, 3]` uint8 arrays of one pixel at least.

  Raises:
    ConfigError: One is not; the message says which.
  """
  for i, picture in enumerate(batch):
    shape, dtype = np.shape(picture), getattr(picture, "dtype", type(picture))
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
      raise ConfigError(
        f"picture {i} of the batch is {dtype} {shape}, expected uint8 [h, w, 3]: RGB"
        " with a pixel at least; np.asarray(PIL.Image.open(FILE).convert('RGB')) is"
      )


def shares(corners: np.ndarray, picture: np.ndarray) -> np.ndarray:
  """Boxes `[n, 4]` of a picture from their corners in pixels, cut at its edges."""
  height, width = picture.shape[:2]
  size = np.array([width, height, width, height], np.float32)
  return np.clip(np.reshape(corners, (-1, 4)) / size, 0, 1).astype(np.float32)


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Intersection over union of each with each, `[n, m]`; 0 if both are empty.

  Args:
    boxes: `[n, 4]`.
    others: `[m, 4]`.
  """
  low = np.maximum(boxes[:, None, :2], others[None, :, :2])
  high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
  both = np.prod(np.maximum(high - low, 0), axis=-1)
  either = _areas(boxes)[:, None] + _areas(others)[None] - both
  return both / np.where(either > 0, either, 1)


def suppress(
  boxes: np.ndarray, scores: np.ndarray, *, overlap: float, count: int
) -> np.ndarray:
  """Which boxes stay: the best first, without those that one before covers.

  Non-maximum suppression: a box goes if its intersection over union with one that stays
  is above `overlap`. Of equal scores the first stays.

  Args:
    boxes: `[n, 4]`.
    scores: `[n]`.
    overlap: Above which a box goes.
    count: Of boxes that stay, at most.
  """
  kept: list[int] = []
  order = np.argsort(-scores, kind="stable")
  while len(order) and len(kept) < count:
    best, order = order[0], order[1:]
    kept.append(best)
    order = order[overlaps(boxes[[best]], boxes[order])[0] <= overlap]
  return np.array(kept, np.int64)


def _areas(boxes: np.ndarray) -> np.ndarray:
  return np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
