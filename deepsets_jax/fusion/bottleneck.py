"""Attention bottlenecks: modalities meet in a few tokens that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from deepsets_jax import ragged
from deepsets_jax.encoders.importance import keep_attended, pull_back, wants_importance
from deepsets_jax.encoders.layers import to_common_space
from deepsets_jax.encoders.transformer import FeedForward, head_width, layer_norm
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion.base import Fusion, check_present, normalized, spread_evenly
from deepsets_jax.ragged import Ragged, attention, pooling


class BottleneckFusion(Fusion):
  """A transformer for each modality; they meet in a few tokens that they share.

  Nagrani et al., "Attention Bottlenecks for Multimodal Fusion" (2021): in each layer a
  modality's elements and the bottleneck tokens look at each other, with weights of the
  modality's own; this gives each modality its copy of the tokens, and the mean of the
  copies goes into the next layer. What modalities know of each other has passed
  through these tokens. An absent one has no copy in the mean.

  All layers here are fusion layers; the paper's earlier ones, in which modalities are
  by themselves, are the sequence encoders (`config.model.sequence`). The tokens after
  the last layer are not read, as in the paper, so that fusion takes at least two.

  Read is a class token of each modality; the result is their mean over the modalities
  that are there. The paper has the mean of the modalities' logits by one dense layer,
  which is the same under a head without hidden layers.

  The attention that is sown, see `Fusion`, is the rollout from what is read, all
  modalities alike, through all layers (`encoders.importance.pull_back`); the copies of
  a shared token share its mass. What so ends on class tokens and shared tokens comes
  from no element, and the weights of an example's elements are over their sum.

  Attributes:
    layers: Number of fusion layers; with one, modalities are fused late.
    bottlenecks: Number of shared tokens; 4 in the paper.
    heads, hidden, dropout: As in `transformer.TransformerBlock`.
    pool: None for class tokens; else there are none, and the pool (any but "softmax")
      of each modality's elements is read in their place.

  Raises:
    ConfigError: No layer or bottleneck, or heads that do not divide the width.
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
        shared = _mean(copies, present).reshape(shared.shape).astype(self.dtype)
    if wants_importance(self):
      self.sow_attention(normalized(self._rollout(modalities, streams), modalities))
    return _mean(self._read(own, modalities), present)

  def _all_at_init(self, modalities: Mapping[str, Ragged]) -> dict[str, Ragged]:
    """In sorted order; when parameters are made, those that are absent as well."""
    if self.is_initializing():
      one = next(iter(modalities.values()))
      none = Ragged(
        jnp.zeros((1, self.features), jnp.float32), jnp.zeros_like(one.offsets)
      )
      modalities = dict.fromkeys(self.modalities, none) | dict(modalities)
    return dict(sorted(modalities.items()))

  def _own_rows(self, name: str, part: Ragged) -> Float[Array, "r d"]:
    """A modality's elements, and then a class token for each example, if any."""
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
    """A vector of each modality, of length about 1."""
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

  def _rollout(
    self, modalities: Mapping[str, Ragged], streams: _Streams
  ) -> dict[str, Float[Array, "n"]]:
    """The elements' part of a mass of 1 for each example, even over what is read."""
    b = next(iter(modalities.values())).num_examples
    present = {k: (v.lengths > 0).astype(jnp.float32) for k, v in modalities.items()}
    count = jnp.maximum(sum(present.values()), 1)
    share = {name: x / count for name, x in present.items()}
    own = {}
    for name, part in modalities.items():
      classes = share[name]
      elements = jnp.zeros(part.num_slots, jnp.float32)
      if self.pool is not None:
        elements, classes = spread_evenly(classes, part), classes[:0]
      own[name] = jnp.concatenate([elements, classes])
    shared = jnp.zeros((b, self.bottlenecks), jnp.float32)
    for index in reversed(range(self.layers)):
      mass = jnp.zeros(streams.num_slots, jnp.float32)
      for name, x in own.items():
        copy = (shared * share[name][:, None]).reshape(-1)
        slots = streams.slots[name]
        mass = mass.at[slots].set(
          jnp.concatenate([x, copy]), mode="drop", unique_indices=True
        )
      mass = sum(pull_back(self.variables["importance"][f"layer_{index}"], mass))
      shared = jnp.zeros_like(shared)
      for name, slots in streams.slots.items():
        rows = jnp.take(mass, slots, axis=0, mode="fill", fill_value=0)
        own[name], copy = jnp.split(rows, [len(own[name])])
        shared += copy.reshape(shared.shape)
    return {name: own[name][: part.num_slots] for name, part in modalities.items()}


def _mean(
  vectors: Mapping[str, Float[Array, "b d"]], present: Mapping[str, Bool[Array, "b"]]
) -> Float[Array, "b d"]:
  """The mean over the modalities that are there; zeros where none is."""
  count = sum(x.astype(jnp.float32) for x in present.values())
  total = sum(
    jnp.where(present[name][:, None], x.astype(jnp.float32), 0)
    for name, x in vectors.items()
  )
  return total / jnp.maximum(count, 1)[:, None]


@flax.struct.dataclass
class _Streams:
  """All modalities' rows in one flat array, a segment per example and modality.

  One attention then serves all modalities: one set of loops to compile and to run.

  Attributes:
    slots: By modality, where each of its rows goes; past the end for padding.
    plan: Of the segments.
    num_slots: Of the flat array.
  """

  slots: dict[str, Int[Array, "r"]]
  plan: attention.Plan
  num_slots: int = flax.struct.field(pytree_node=False)


def _streams(modalities: Mapping[str, Ragged], tokens: Sequence[int]) -> _Streams:
  """The places of rows: elements, then each kind of token, so many for an example."""
  b, num_tokens = next(iter(modalities.values())).num_examples, sum(tokens)
  places = jnp.arange(b + 1, dtype=jnp.int32)
  # Only places are wanted: vectors of no features.
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
    last: Whether the shared tokens are only seen: nobody reads what becomes of them.
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
    """Each modality's rows and its copy of the shared ones, after they have met."""
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
    keep_attended(self, q, k, streams.plan)
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
  """Queries, keys and values of normed rows."""

  heads: int
  width: int
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "r d"]) -> Float[Array, "r 3 h k"]:
    project = nn.DenseGeneral((3, self.heads, self.width), dtype=self.dtype)
    return project(layer_norm(x, self.dtype))


class _Update(nn.Module):
  """The rest of a block, row by row, after what the rows have seen."""

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
