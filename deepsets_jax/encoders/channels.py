"""A vector per channel, any of them absent, to one vector per example.

The fusions of torchmultimodal (facebookresearch/multimodal), which take a dictionary of
`[b, c]`, one for each channel. As they are here, an absent channel takes no part, and
what the originals do wrong is mended; with `parity` they give the originals' numbers,
and want every channel. Channels always stand in sorted order, so that the dictionary's
does not matter. One more axis here: `m` channels.
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
  """Vectors of several channels, as a `Deepset`.

  Attributes:
    widths: `c` of every channel.
    deepset: What fuses them.
    auto_mapping: Whether a dense layer of each channel brings it to the least width;
      else all must be of one width.
    dtype: Of the dense layers' computation.
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
    """The fused vector; `present` says in which examples a channel is, None for all."""
    if not self.auto_mapping and len(set(self.widths.values())) > 1:
      raise ConfigError(
        f"channels of widths {dict(self.widths)}: with auto_mapping they need not be"
        " of one width"
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
  """The channels' projections, weighted by a softmax of a dense layer of all of them.

  An absent channel has no weight and nothing to say in those of the others. The weights
  `[b, m]` are sown in the collection "importance" as "weights".

  Attributes:
    widths: `c` of every channel.
    projection_dim: `f`; None for the least width.
    parity: Whether a channel that is not given is an error.
    dtype: Of the dense layers' computation.
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
    """The fused vector; `present` as in `ChannelDeepset`."""
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
  """The channels side by side, and a dense layer of them.

  To the dense layer an absent channel adds nothing. Without one its place is zeros.

  Attributes:
    widths: `c` of every channel.
    projection_dim: `f` of the dense layer; None for no layer.
    parity: Whether a channel that is not given is an error.
    dtype: Of the dense layer's computation.
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
    """The fused vector; `present` as in `ChannelDeepset`."""
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
  """Every channel's vectors in sorted order, zeros where absent, and who is present.

  Raises:
    ConfigError: A channel is unknown, of another shape, or missing where all are to be
      there (`complete`), or none is given; it names the channel.
  """
  if unknown := sorted(set(vectors) - set(widths)):
    raise ConfigError(f"unknown channel {unknown[0]!r}; there are {sorted(widths)}")
  if not vectors:
    raise ConfigError("no channel is given: the number of examples is unknown")
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
        f"channel {name!r} of shape {row.shape}, expected {shape}: one vector for each"
        " example; pool repeated ones first"
      )
    here = jnp.full(b, name in vectors)
    if present is not None and name in vectors:
      here = present[name]
    # Whatever stands in the place of an absent one, NaN too, must not come in.
    rows[name] = jnp.where(here[:, None], row, 0)
    some.append(here)
  return rows, jnp.stack(some, axis=1)
