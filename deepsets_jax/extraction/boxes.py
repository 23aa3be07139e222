"""Boxes in pictures: left, top, right, bottom, as fractions of width and height."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deepsets_jax.foundation.errors import ConfigError


def check_pictures(batch: Sequence[np.ndarray]) -> None:
  """Raise unless all are `[h, w, 3]` uint8 arrays with at least one pixel.

  Raises:
    ConfigError: The message names the first that is not.
  """
  for i, picture in enumerate(batch):
    shape, dtype = np.shape(picture), getattr(picture, "dtype", type(picture))
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
      raise ConfigError(
        f"picture {i} of the batch is {dtype} {shape}, expected uint8 [h, w, 3] with"
        " at least one pixel. Use np.asarray(PIL.Image.open(FILE).convert('RGB'))."
      )


def relative_boxes(corners: np.ndarray, picture: np.ndarray) -> np.ndarray:
  """Boxes `[n, 4]` from corners in pixels, clipped to the picture."""
  height, width = picture.shape[:2]
  size = np.array([width, height, width, height], np.float32)
  return np.clip(np.reshape(corners, (-1, 4)) / size, 0, 1).astype(np.float32)


def intersection_over_union(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Intersection over union of all pairs of boxes, `[n, m]`; 0 if both are empty.

  Args:
    boxes: `[n, 4]`.
    others: `[m, 4]`.
  """
  low = np.maximum(boxes[:, None, :2], others[None, :, :2])
  high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
  both = np.prod(np.maximum(high - low, 0), axis=-1)
  either = _areas(boxes)[:, None] + _areas(others)[None] - both
  return both / np.where(either > 0, either, 1)


def suppress_overlaps(
  boxes: np.ndarray, scores: np.ndarray, *, overlap: float, count: int
) -> np.ndarray:
  """Non-maximum suppression: the indices of the boxes that stay, best first.

  A box is removed if its intersection over union with a better one that stays is above
  `overlap`. Of equal scores the first comes first.

  Args:
    boxes: `[n, 4]`.
    scores: `[n]`.
    overlap: Largest intersection over union that is allowed.
    count: Largest number of boxes that stay.
  """
  kept: list[int] = []
  order = np.argsort(-scores, kind="stable")
  while len(order) and len(kept) < count:
    best, order = order[0], order[1:]
    kept.append(best)
    order = order[intersection_over_union(boxes[[best]], boxes[order])[0] <= overlap]
  return np.array(kept, np.int64)


def _areas(boxes: np.ndarray) -> np.ndarray:
  return np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
