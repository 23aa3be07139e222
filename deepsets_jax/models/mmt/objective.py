"""Retrieval between texts and videos: similarities, losses and metrics.

As published with Gabeur et al., "Multi-modal Transformer for Video Retrieval" (2020).
Axes besides the usual: `q` captions, `b` videos, `e` experts. Every video has the same
number of captions, side by side: caption `i` belongs to video `i // (q / b)`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from deepsets_jax.foundation.errors import ConfigError

# Replaces a sum of weights that is zero; all similarities are zero then, too.
_NO_WEIGHT = 1e-5
_RECALLS = (1, 5, 10, 50)


class Embedded(NamedTuple):
  """The vectors of texts or videos, one per expert, and their weights.

  Attributes:
    embeddings: Vectors of length 1.
    weights: The weight of each expert, at least 0. They add up to 1, or are all zero
      for a video without experts.
  """

  embeddings: Float[Array, "b e d"]
  weights: Float[Array, "b e"]


def similarities(text: Embedded, video: Embedded) -> Float[Array, "q b"]:
  """The weighted mean over the experts of the products of text and video vectors.

  The weight of an expert is the product of its weights in the text and in the video,
  divided by the sum over the experts. A video without weights has similarity 0.
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
  """The mean violation of the margin over all wrong pairs in both directions.

  max(0, margin - s_ii + s_ij) for the text i and the video j, and the same for s_ji
  (Karpathy et al., "Deep Fragment Embeddings for Bidirectional Image Sentence Mapping",
  2014), in units of similarity.

  Args:
    similarities: One caption per video, in the order of the videos.
    margin: How much more similar a right pair should be than a wrong one.
    diagonal: Whether right pairs also count as wrong ones. Each then adds `margin` to
      the sum, and no gradient. Public models are trained without.

  Raises:
    ConfigError: The matrix is not square, or has a single pair and so no wrong one.
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
  """The cross-entropy of finding the video of a text plus that of the reverse.

  Both are means over the batch, in nats (van den Oord et al., "Representation Learning
  with Contrastive Predictive Coding", 2018). The similarities are the logits, without a
  temperature.

  Raises:
    ConfigError: The matrix is not square, or has a single pair.
  """
  _pairs(similarities)
  right = jnp.diagonal(similarities)
  texts = jax.nn.logsumexp(similarities, axis=1) - right
  videos = jax.nn.logsumexp(similarities, axis=0) - right
  return jnp.mean(texts) + jnp.mean(videos)


def _pairs(similarities: Float[Array, "b b"]) -> int:
  if similarities.ndim != 2 or len(set(similarities.shape)) > 1:
    raise ConfigError(
      f"similarities of shape {similarities.shape}, expected [b, b]: one text per video"
    )
  if len(similarities) < 2:
    raise ConfigError("a single pair: the loss needs wrong pairs; give at least two")
  return len(similarities)


def text_to_video(
  similarities: Float[np.ndarray, "q b"], mask: Bool[np.ndarray, "..."] | None = None
) -> dict[str, float]:
  """Metrics of captions that search for their video, see `metrics`.

  Args:
    similarities: The similarity of each caption to each video.
    mask: `[q]` or `[b, q / b]`: False for a missing caption of a video that has fewer
      than the others.

  Raises:
    ConfigError: The number of captions is not a multiple of the number of videos, the
      mask has another size or leaves no caption, or a similarity is not finite.
  """
  similarities, mask = _checked(similarities, mask)
  owners = np.repeat(np.arange(mask.shape[0]), mask.shape[1])
  right = np.take_along_axis(similarities, owners[:, None], axis=1)
  return metrics(_ranks(right, similarities)[mask.ravel()])


def video_to_text(
  similarities: Float[np.ndarray, "q b"], mask: Bool[np.ndarray, "..."] | None = None
) -> dict[str, float]:
  """Metrics of videos that search for the best ranked of their captions.

  A video without a caption is left out. Arguments, results and errors are those of
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
    ranks: The rank of each right answer, from 0. Ties share the mean of their ranks, so
      a rank may be half an integer.

  Returns:
    "r1", "r5", "r10", "r50": the percentage of right answers among the first 1, 5, 10
    or 50; a tie for the first place does not count for "r1". "geometric_mean": that of
    the first three. "median_rank" and "mean_rank": ranks from 1.
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
  """The number of larger similarities in a row, plus half of the other equal ones."""
  return (rows > right).sum(1) + ((rows == right).sum(1) - 1) / 2


def _checked(similarities, mask):
  """Both arguments as numpy arrays after checks; the mask has shape `[b, q / b]`."""
  similarities = np.asarray(similarities)
  q, b = similarities.shape
  if not b or q % b or not q:
    raise ConfigError(
      f"{q} captions of {b} videos; each needs the same number, pad and pass a mask"
    )
  mask = np.ones(q, bool) if mask is None else np.asarray(mask).astype(bool)
  if mask.size != q:
    raise ConfigError(f"a mask of {mask.size} captions: there are {q}")
  mask = mask.reshape(b, q // b)
  if not mask.any():
    raise ConfigError("the mask leaves no caption")
  if not np.isfinite(similarities[mask.ravel()]).all():
    raise ConfigError("some similarities of captions are not finite")
  return similarities, mask
