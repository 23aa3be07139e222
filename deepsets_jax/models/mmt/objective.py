"""Retrieval between texts and videos: similarities, losses and metrics.

As published with Gabeur et al., "Multi-modal Transformer for Video Retrieval" (2020).
Axes besides the usual: `q` captions, `b` videos, `e` experts. The captions of a video
lie one after the other, as many for each video: caption `i` is of video `i // (q / b)`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from deepsets_jax.foundation.errors import ConfigError

# In place of a sum of weights that is zero, where all similarities are zero, too.
_NO_WEIGHT = 1e-5
_RECALLS = (1, 5, 10, 50)


class Embedded(NamedTuple):
  """A text or a video: a vector per expert, and the weight of each.

  Attributes:
    embeddings: Of length 1.
    weights: Not negative. They add up to 1, or are all zero for a video without any
      expert.
  """

  embeddings: Float[Array, "b e d"]
  weights: Float[Array, "b e"]


def similarities(text: Embedded, video: Embedded) -> Float[Array, "q b"]:
  """The weighted mean over the experts of the products of text and video.

  The weight of an expert is the product of that of the text and that of the video, and
  a pair's weights add up to 1. 0 for a video that has no expert of any weight.
  """
  total = jnp.einsum("qe,be->qb", text.weights, video.weights)
  products = jnp.einsum(
    "qed,bed->qb",
    text.embeddings * text.weights[:, :, None],
    video.embeddings * video.weights[:, :, None],
  )
  return products / jnp.where(total == 0, _NO_WEIGHT, total)


def max_margin_loss(
  similarities: Float[Array, "b b"], *, margin: float = 0.05, diagonal: bool = False
) -> Float[Array, ""]:
  """The mean violation of the margin, over all wrong pairs in both directions.

  max(0, margin - s_ii + s_ij) for the text i and the video j, and the same for s_ji
  (Karpathy et al., 2014), in units of similarity.

  Args:
    similarities: Of one caption per video, in the order of the videos.
    margin: By how much the right pair shall be more similar.
    diagonal: Whether the right pairs count as wrong ones, too: each adds `margin`, and
      no gradient. Public models are trained without.

  Raises:
    ConfigError: Not square, or a single pair, which has no wrong one.
  """
  b = _pairs(similarities)
  right = jnp.diagonal(similarities)[:, None]
  texts = jax.nn.relu(margin - right + similarities)
  videos = jax.nn.relu(margin - right + similarities.T)
  if diagonal:
    return jnp.mean(texts + videos) / 2
  wrong = ~np.eye(b, dtype=bool)
  return jnp.sum(jnp.where(wrong, texts + videos, 0)) / (2 * b * (b - 1))


def info_nce_loss(similarities: Float[Array, "b b"]) -> Float[Array, ""]:
  """Cross-entropy of finding the video of a text, plus that of finding the text.

  In nats; each the mean over the batch (van den Oord et al., 2018). The similarities
  are the logits: there is no temperature.

  Raises:
    ConfigError: Not square, or a single pair.
  """
  _pairs(similarities)
  right = jnp.diagonal(similarities)
  texts = jax.nn.logsumexp(similarities, axis=1) - right
  videos = jax.nn.logsumexp(similarities, axis=0) - right
  return jnp.mean(texts) + jnp.mean(videos)


def _pairs(similarities: Float[Array, "b b"]) -> int:
  if similarities.ndim != 2 or len(set(similarities.shape)) > 1:
    raise ConfigError(f"similarities of shape {similarities.shape}: one text per video")
  if len(similarities) < 2:
    raise ConfigError("a single pair: a loss of retrieval needs wrong ones")
  return len(similarities)


def text_to_video(
  similarities: Float[np.ndarray, "q b"], mask: Bool[np.ndarray, "..."] | None = None
) -> dict[str, float]:
  """How well captions find their video; see `metrics`.

  Args:
    similarities: Of each caption with each video.
    mask: `[q]` or `[b, q / b]`: False for a caption that is not there, where a video
      has fewer than the others.

  Raises:
    ConfigError: A number of captions that the videos do not divide, a mask of another
      size, similarities that are not finite, or no caption at all.
  """
  similarities, mask = _checked(similarities, mask)
  owners = np.repeat(np.arange(mask.shape[0]), mask.shape[1])
  right = np.take_along_axis(similarities, owners[:, None], axis=1)
  return metrics(_ranks(right, similarities)[mask.ravel()])


def video_to_text(
  similarities: Float[np.ndarray, "q b"], mask: Bool[np.ndarray, "..."] | None = None
) -> dict[str, float]:
  """How well videos find the best ranked one of their captions; see `metrics`.

  A video without a caption is left out. Arguments and errors are those of
  `text_to_video`.
  """
  similarities, mask = _checked(similarities, mask)
  there = similarities.T[:, mask.ravel()]
  ranks = np.full(mask.shape, np.inf)
  for video, (row, captions) in enumerate(zip(there, mask, strict=True)):
    own = similarities[:, video].reshape(mask.shape)[video, captions]
    ranks[video, captions] = _ranks(
      own[:, None], np.broadcast_to(row, (len(own), len(row)))
    )
  return metrics(ranks.min(axis=1)[mask.any(axis=1)])


def metrics(ranks: Float[np.ndarray, "q"]) -> dict[str, float]:
  """Recalls and ranks of retrieval.

  Args:
    ranks: Of what was sought, from 0; those that tie share the mean of their ranks, so
      that halves occur.

  Returns:
    "r1", "r5", "r10", "r50": how many found it among the first so many, in per cent;
    who ties for the first place has not found it at "r1". "geometric_mean" of the first
    three. "median_rank" and "mean_rank", from 1.
  """
  found = {
    f"r{k}": 100 * float(np.mean(ranks == 0 if k == 1 else ranks < k)) for k in _RECALLS
  }
  return found | {
    "geometric_mean": float(np.cbrt(found["r1"] * found["r5"] * found["r10"])),
    "median_rank": float(np.median(ranks)) + 1,
    "mean_rank": float(np.mean(ranks)) + 1,
  }


def _ranks(
  right: Float[np.ndarray, "r 1"], rows: Float[np.ndarray, "r m"]
) -> Float[np.ndarray, "r"]:
  """How many of a row are more similar, and half of the others as similar."""
  return (rows > right).sum(1) + ((rows == right).sum(1) - 1) / 2


def _checked(similarities, mask):
  """Both, as numpy arrays; the mask as `[b, q / b]`."""
  similarities = np.asarray(similarities)
  q, b = similarities.shape
  if not b or q % b or not q:
    raise ConfigError(f"{q} captions of {b} videos: not as many for each")
  mask = np.ones(q, bool) if mask is None else np.asarray(mask).astype(bool)
  if mask.size != q:
    raise ConfigError(f"a mask of {mask.size} captions: there are {q}")
  mask = mask.reshape(b, q // b)
  if not mask.any():
    raise ConfigError("no caption: the mask leaves none")
  if not np.isfinite(similarities[mask.ravel()]).all():
    raise ConfigError("similarities that are not finite")
  return similarities, mask
