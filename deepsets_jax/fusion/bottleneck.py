"""Attention bottlenecks: modalities exchange information through shared tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from deepsets_jax import ragged
from deepsets_jax.encoders.importance import sow_attended, sow_importance
from deepsets_jax.encoders.layers import to_common_space
from deepsets_jax.encoders.transformer import FeedForward, head_width, layer_norm
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion.base import Fusion, check_present
from deepsets_jax.ragged import Ragged, attention, pooling


class BottleneckFusion(Fusion):
  """Transformers of modalities that exchange information through shared tokens.

  Nagrani et al., "Attention Bottlenecks for Multimodal Fusion" (2021): in each layer
  the elements of a modality and the bottleneck tokens attend to each other, with
  weights of the modality's own. This gives each modality its copy of the tokens, and
  the mean of the copies goes into the next layer. All that modalities know of each
  other has passed through these tokens. An absent modality has no copy in the mean.

  All layers here are fusion layers. The earlier layers of the paper, in which each
  modality is by itself, are the sequence encoders (`config.model.sequence`). As in the
  paper, the tokens after the last layer are not read, so that modalities exchange
  information only if there are at least two layers.

  The result is the mean of the class tokens of the modalities that are there. The paper
  takes the mean of the modalities' logits by one dense layer, which is the same under a
  head without hidden layers.

  Attributes:
    layers: Number of fusion layers, at least 1; with 1, modalities are fused late.
    bottlenecks: Number of shared tokens, at least 1; 4 in the paper.
    heads: Number of attention heads; must divide the features.
    hidden: Width of the feed-forward layers; None for four times the features.
    dropout: Dropout rate in all layers, from 0 to below 1.
    pool: None to read class tokens. Otherwise there are no class tokens, and the pool
      of each modality's elements is read instead: a name in `pooling.POOLS` or
      "median", except "softmax".

  Raises:
    ConfigError: `layers` or `bottlenecks` is not positive, or the heads do not divide
      the width.
  """

  layers: int = 2
  bottlenecks: int = 4
  heads: int = 4
  hidden: int | None = None
  dropout: float = 0.0
  pool: str | None = None

  @nn.compact
  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    check_present(modalities)
    for setting in ("layers", "bottlenecks"):
      if getattr(self, setting) < 1:
        raise ConfigError(f"bottleneck: {getattr(self, setting)} {setting}; at least 1")
    modalities = self._all_at_init(modalities)
    present = {name: part.lengths > 0 for name, part in modalities.items()}
    b = len(next(iter(present.values())))
    own = {name: self._own_rows(name, part) for name, part in modalities.items()}
    shared = self._tokens("bottlenecks", self.bottlenecks, b)
    tokens = (self.bottlenecks,) if self.pool is not None else (1, self.bottlenecks)
    streams = _streams(modalities, tokens)
    for index in range(self.layers):
      layer = _Layer(
        self.features,
        self.heads,
        self.hidden,
        self.dropout,
        self.dtype,
        last=index == self.layers - 1,
        name=f"layer_{index}",
      )
      own, copies = layer(own, shared, streams, train=train)
      if copies:
        copies = {name: x.reshape(b, -1) for name, x in copies.items()}
        mean = mean_of_present(copies, present)
        shared = mean.reshape(shared.shape).astype(self.dtype)
    sow_importance(self, "slots", streams.slots)
    return mean_of_present(self._read(own, modalities), present)

  def _all_at_init(self, modalities: Mapping[str, Ragged]) -> dict[str, Ragged]:
    """The modalities in sorted order; at initialisation also those that are absent.

    So all parameters exist, whatever the first batch holds.
    """
    if self.is_initializing():
      one = next(iter(modalities.values()))
      none = Ragged(
        jnp.zeros((1, self.features), jnp.float32), jnp.zeros_like(one.offsets)
      )
      modalities = dict.fromkeys(self.modalities, none) | dict(modalities)
    return dict(sorted(modalities.items()))

  def _own_rows(self, name: str, part: Ragged) -> Float[Array, "r d"]:
    """The elements of a modality, then a class token for each example unless pooled."""
    rows = part.values.astype(self.dtype)
    if self.pool is not None:
      return rows
    classes = self._tokens(f"class_{name}", 1, part.num_examples)
    return jnp.concatenate([rows, classes])

  def _tokens(self, name: str, count: int, b: int) -> Float[Array, "b*t d"]:
    """Learned vectors of length about 1, the same for each example."""
    init = nn.initializers.normal(self.features**-0.5, jnp.float32)
    tokens = self.param(name, init, (count, self.features)).astype(self.dtype)
    return jnp.tile(tokens, (b, 1))

  def _read(
    self, own: Mapping[str, Array], modalities: Mapping[str, Ragged]
  ) -> dict[str, Float[Array, "b d"]]:
    """The vector of each modality, of length about 1."""
    norm = nn.LayerNorm(
      scale_init=nn.initializers.constant(self.features**-0.5), name="norm"
    )
    read = {}
    for name, part in modalities.items():
      normed = norm(own[name].astype(jnp.float32))
      elements, classes = normed[: part.num_slots], normed[part.num_slots :]
      if self.pool is not None:
        classes = pooling.pool(self.pool, Ragged(elements, part.offsets))
      read[name] = classes
    return read


def mean_of_present(
  vectors: Mapping[str, Float[Array, "b d"]], present: Mapping[str, Bool[Array, "b"]]
) -> Float[Array, "b d"]:
  """The mean over the modalities that an example has; zeros if it has none."""
  count = sum(x.astype(jnp.float32) for x in present.values())
  total = sum(
    jnp.where(present[name][:, None], x.astype(jnp.float32), 0)
    for name, x in vectors.items()
  )
  return total / jnp.maximum(count, 1)[:, None]


@flax.struct.dataclass
class _Streams:
  """The rows of all modalities in one flat array, a segment per example and modality.

  One attention then serves all modalities, with one set of loops to compile and run.

  Attributes:
    slots: The slot of each row, by modality; past the end for padding.
    plan: The plan of the attention inside the segments.
    num_slots: Number of slots of the flat array.
  """

  slots: dict[str, Int[Array, "r"]]
  plan: attention.Plan
  num_slots: int = flax.struct.field(pytree_node=False)


def _streams(modalities: Mapping[str, Ragged], tokens: Sequence[int]) -> _Streams:
  """The layout of the rows: elements, then each kind of token.

  Args:
    modalities: Elements by modality.
    tokens: Number of tokens of each kind per example.
  """
  b, num_tokens = next(iter(modalities.values())).num_examples, sum(tokens)
  places = jnp.arange(b + 1, dtype=jnp.int32)
  # Only the layout is needed, hence vectors without features.
  kinds = [
    Ragged(jnp.zeros((b * count, 0), jnp.float32), places * count) for count in tokens
  ]
  parts = []
  for part in modalities.values():
    parts += [Ragged(jnp.zeros((part.num_slots, 0), jnp.float32), part.offsets), *kinds]
  merged, slots = ragged.concatenate(parts)
  step = 1 + len(kinds)
  lengths = [part.lengths + num_tokens for part in modalities.values()]
  lengths = jnp.stack(lengths, axis=1).reshape(-1)
  offsets = ragged.device_offsets(lengths)
  longest = max(part.num_slots for part in modalities.values()) + num_tokens
  return _Streams(
    slots={
      name: jnp.concatenate(slots[step * index : step * (index + 1)])
      for index, name in enumerate(modalities)
    },
    plan=attention.plan(offsets, offsets, longest, longest),
    num_slots=merged.num_slots,
  )


class _Layer(nn.Module):
  """Transformer blocks, one for each modality, whose attention runs as one.

  Attributes:
    features, heads, hidden, dropout, dtype: As in `transformer.TransformerBlock`.
    last: Whether this is the last layer, which does not update the shared tokens.
  """

  features: int
  heads: int
  hidden: int | None
  dropout: float
  dtype: Any
  last: bool

  @nn.compact
  def __call__(
    self,
    own: Mapping[str, Float[Array, "r d"]],
    shared: Float[Array, "t d"],
    streams: _Streams,
    *,
    train: bool,
  ) -> tuple[dict[str, Float[Array, "r d"]], dict[str, Float[Array, "t d"]]]:
    """Returns the updated rows of each modality and its copy of the shared tokens."""
    width = head_width(self.features, self.heads, "/".join(self.path))
    merged = jnp.zeros((streams.num_slots, 3, self.heads, width), self.dtype)
    for name, x in own.items():
      project = _Project(self.heads, width, self.dtype, name=f"project_{name}")
      merged = merged.at[streams.slots[name]].set(
        project(jnp.concatenate([x, shared])), mode="drop", unique_indices=True
      )
    flops = attention.uncounted_flops(streams.plan, self.heads, width, width)
    self.sow("cost", "attention_flops", flops)
    q, k, v = (merged[:, i] for i in range(3))
    sow_attended(self, q, k, streams.plan)
    attended = attention.attend(q, k, v, streams.plan).reshape(-1, self.features)
    rows, copies = {}, {}
    for name, x in own.items():
      x = x if self.last else jnp.concatenate([x, shared])
      slots = streams.slots[name][: len(x)]
      seen = jnp.take(attended, slots, axis=0, mode="fill", fill_value=0)
      update = _Update(
        self.features, self.hidden, self.dropout, self.dtype, name=f"update_{name}"
      )
      x = update(x, seen, train=train)
      rows[name], copy = jnp.split(x, [len(own[name])])
      if not self.last:
        copies[name] = copy
    return rows, copies


class _Project(nn.Module):
  """The queries, keys and values of rows after a LayerNorm."""

  heads: int
  width: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "r d"]) -> Float[Array, "r 3 h k"]:
    project = nn.DenseGeneral((3, self.heads, self.width), dtype=self.dtype)
    return project(layer_norm(x, self.dtype))


class _Update(nn.Module):
  """The rest of a transformer block, row by row, given what the rows attended to."""

  features: int
  hidden: int | None
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(
    self, x: Float[Array, "r d"], seen: Float[Array, "r d"], *, train: bool
  ) -> Float[Array, "r d"]:
    drop = nn.Dropout(self.dropout, deterministic=not train)
    x = x + drop(to_common_space(self.features, self.dtype)(seen))
    feed = FeedForward(self.features, self.hidden, self.dropout, dtype=self.dtype)
    return x + drop(feed(layer_norm(x, self.dtype), train=train))
