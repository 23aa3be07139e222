"""Fusions of one vector per channel, any of them absent, to one vector per example.

These are the fusions of torchmultimodal (facebookresearch/multimodal), which take a
dictionary of `[b, c]` arrays, one per channel. Here an absent channel is ignored, and
errors of the originals are corrected. With `parity` they give the numbers of the
originals, and need every channel. Channels are used in sorted order, so that the order
of the dictionary does not matter. One more axis: `m` channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from deepsets_jax.encoders.deepset import Deepset
from deepsets_jax.encoders.importance import sow_importance
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged


class ChannelDeepset(nn.Module):
  """Fuse the vectors of several channels by a `Deepset`.

  Attributes:
    widths: `c` of every channel.
    deepset: The module that fuses them.
    auto_mapping: Whether a dense layer per channel maps it to the smallest width;
      otherwise all channels must have the same width.
    dtype: Type of the computation of dense layers.
  """

  widths: Mapping[str, int]
  deepset: Deepset
  auto_mapping: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    vectors: Mapping[str, Float[Array, "b c"]],
    present: Mapping[str, Bool[Array, "b"]] | None = None,
    *,
    train: bool,
  ) -> Float[Array, "b f"]:
    """Return the fused vectors.

    Args:
      vectors: One vector per example for each channel; absent channels may be left out.
      present: The examples that have a channel; None if all have it.
      train: Whether dropout is on, which needs a "dropout" key.
    """
    if not self.auto_mapping and len(set(self.widths.values())) > 1:
      raise ConfigError(
        f"channels of different widths {dict(self.widths)}: set auto_mapping, or make"
        " the widths equal"
      )
    rows, some = channel_rows(self.widths, vectors, present, self.deepset.parity)
    if self.auto_mapping:
      width = min(self.widths.values())
      rows = {
        name: nn.Dense(width, dtype=self.dtype, name=f"projection_{name}")(row)
        for name, row in rows.items()
      }
    x = jnp.stack([row.astype(jnp.float32) for row in rows.values()], axis=1)
    b, m, d = x.shape
    x = jnp.where(some[..., None], x, 0).reshape(b * m, d)
    elements = Ragged(x, jnp.arange(b + 1, dtype=jnp.int32) * m)
    return self.deepset(elements, some, train=train)


class ChannelAttention(nn.Module):
  """Sum the channels' projections, weighted by a softmax.

  The logits are a dense layer of all channels. An absent channel has weight 0, and does
  not change the weights of the others. The weights `[b, m]` are sown in the collection
  "importance" as "weights".

  Attributes:
    widths: `c` of every channel.
    projection_dim: `f`; None for the smallest width.
    parity: Whether a missing channel is an error.
    dtype: Type of the computation of dense layers.
  """

  widths: Mapping[str, int]
  projection_dim: int | None = None
  parity: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    vectors: Mapping[str, Float[Array, "b c"]],
    present: Mapping[str, Bool[Array, "b"]] | None = None,
  ) -> Float[Array, "b f"]:
    """Return the fused vectors; arguments are those of `ChannelDeepset`."""
    rows, some = channel_rows(self.widths, vectors, present, self.parity)
    width = self.projection_dim or min(self.widths.values())
    scores = nn.Dense(len(rows), dtype=self.dtype, name="attention")(
      jnp.concatenate(list(rows.values()), axis=-1)
    )
    weights = jax.nn.softmax(scores.astype(jnp.float32), where=some)
    sow_importance(self, "weights", weights)
    projected = jnp.stack(
      [
        nn.Dense(width, dtype=self.dtype, name=f"projection_{name}")(row)
        for name, row in rows.items()
      ],
      axis=1,
    )
    return jnp.sum(weights[..., None] * projected.astype(jnp.float32), axis=1)


class ChannelConcat(nn.Module):
  """Concatenate the channels, and apply a dense layer.

  An absent channel is zeros, and adds nothing to the dense layer.

  Attributes:
    widths: `c` of every channel.
    projection_dim: `f` of the dense layer; None for no layer.
    parity: Whether a missing channel is an error.
    dtype: Type of the computation of the dense layer.
  """

  widths: Mapping[str, int]
  projection_dim: int | None = None
  parity: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    vectors: Mapping[str, Float[Array, "b c"]],
    present: Mapping[str, Bool[Array, "b"]] | None = None,
  ) -> Float[Array, "b f"]:
    """Return the fused vectors; arguments are those of `ChannelDeepset`."""
    rows, _ = channel_rows(self.widths, vectors, present, self.parity)
    x = jnp.concatenate(list(rows.values()), axis=-1)
    if self.projection_dim is not None:
      x = nn.Dense(self.projection_dim, dtype=self.dtype, name="projection")(x)
    return x.astype(jnp.float32)


def channel_rows(
  widths: Mapping[str, int],
  vectors: Mapping[str, Float[Array, "b c"]],
  present: Mapping[str, Bool[Array, "b"]] | None,
  complete: bool,
) -> tuple[dict[str, Float[Array, "b c"]], Bool[Array, "b m"]]:
  """Return every channel's vectors in sorted order, and the presence of channels.

  Vectors of absent channels are zeros. With `complete` every channel is needed.

  Raises:
    ConfigError: A channel is unknown, has another shape, or is missing although all are
      needed, or no channel is given; the message names the channel.
  """
  if unknown := sorted(set(vectors) - set(widths)):
    raise ConfigError(f"unknown channel {unknown[0]!r}; there are {sorted(widths)}")
  if not vectors:
    raise ConfigError("no channel is given; pass at least one, zeros if all are absent")
  missing = sorted(set(widths) - set(vectors))
  if complete and missing:
    raise ConfigError(f"{missing[0]!r} is absent: with parity every channel is needed")
  b = len(next(iter(vectors.values())))
  rows, some = {}, []
  for name in sorted(widths):
    shape = (b, widths[name])
    row = vectors.get(name, jnp.zeros(shape, jnp.float32)).astype(jnp.float32)
    if row.shape != shape:
      raise ConfigError(
        f"channel {name!r} has shape {row.shape}, expected {shape}: one vector per"
        " example; pool sets of vectors first"
      )
    here = jnp.full(b, name in vectors)
    if present is not None and name in vectors:
      here = present[name]
    # The vector of an absent channel must have no effect, even if it is NaN.
    rows[name] = jnp.where(here[:, None], row, 0)
    some.append(here)
  return rows, jnp.stack(some, axis=1)
