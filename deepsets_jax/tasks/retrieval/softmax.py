"""The sampled softmax: the next item told from other users' and from random ones."""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from deepsets_jax.data.interactions.next_item import HISTORY
from deepsets_jax.data.interactions.pairs import Pairs
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.models.two_tower import TwoTowers
from deepsets_jax.ragged import Ragged
from deepsets_jax.training.sharding import AXIS


def loss(
  logits: Float[Array, "b m"],
  rows: Int[Array, "m"],
  own: Int[Array, "b"],
  log_expected: Float[Array, "m"],
  candidates: Bool[Array, "b m"],
  weights: Float[Array, "b"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """The summed cross-entropy of each user's own candidate, in nats, and its weight.

  From each logit the log of how often its item is expected among the candidates is
  taken away, so that it is as if all items were there: else popular ones, which many
  users came to, would be pushed down (Bengio and Senecal, 2008; Yi et al., 2019,
  "Sampling-Bias-Corrected Neural Modeling"). Candidates that are the same item as the
  own one, by chance, are left out.

  Args:
    logits: Products over the temperature.
    rows: The item of each candidate.
    own: The candidate that each user came to.
    log_expected: Of each candidate; see `pairs.Pairs`.
    candidates: Which of them are so for which user; the own one always is.
    weights: 0 for a user that is only padding.
  """
  by_chance = (rows[None] == rows[own][:, None]) & (
    jnp.arange(len(rows), dtype=own.dtype)[None] != own[:, None]
  )
  corrected = logits - log_expected[None]
  corrected = jnp.where(candidates & ~by_chance, corrected, -jnp.inf)
  # A padding user's own candidate may be none; what is lost there does not count.
  losses = jax.nn.logsumexp(jnp.where(weights[:, None] > 0, corrected, 0), axis=1)
  losses = losses - jnp.take_along_axis(corrected, own[:, None], axis=1)[:, 0]
  return jnp.sum(jnp.where(weights > 0, losses, 0) * weights), jnp.sum(weights)


def seen(history: Ragged, rows: Int[Array, "m"]) -> Bool[Array, "b m"]:
  """Whether an item is in the history of each user.

  Args:
    history: Rows of items.
    rows: Of the items in question; one may be there several times.
  """
  order = jnp.sort(rows)
  # An item stands for all of its copies by the first of them.
  first = jnp.searchsorted(order, history.values)
  first = jnp.minimum(first, len(rows) - 1)
  there = order[first] == history.values
  marks = jnp.zeros((history.num_examples, len(rows)), bool)
  marks = marks.at[history.segment_ids, first].max(there, mode="drop")
  return marks[:, jnp.searchsorted(order, rows)]


@dataclasses.dataclass(frozen=True)
class SampledSoftmax:
  """The loss of `Pairs`, for `step.build_step`.

  Candidates are the items that the users of a shard came to, where `in_batch`, and the
  uniform negatives: with both, mixed negative sampling (Yang et al., 2020). Without the
  former and with all items as the latter it is the full softmax.

  Attributes:
    model: The towers.
    temperature: Divides the products.
    in_batch: Whether the items of other users are candidates.
    mask_seen: Whether the items in a user's history are left out of its candidates:
      they are no choice where nobody comes to an item twice.
  """

  model: TwoTowers
  temperature: float
  in_batch: bool
  mask_seen: bool = False

  def __post_init__(self):
    if self.temperature <= 0:
      raise ConfigError(
        f"config.retrieval.temperature is {self.temperature}; expected above 0"
      )

  def of_shard(self, params: PyTree, pairs: Pairs, key: Array) -> tuple[Array, Array]:
    """Summed loss and weight; candidates are those of the shard."""
    users, found = self._embed(params, pairs, key)
    return self._loss(pairs, users, found, jnp.zeros((), jnp.int32))

  def of_device(self, params: PyTree, pairs: Pairs, keys: Array) -> tuple[Array, Array]:
    """The same of all shards of a device, `[s, ...]` with a key each, together.

    Candidates are those of all shards, gathered from all devices.
    """
    # Not vmap: scatters over shards are slow on GPUs.
    users, found = jax.lax.map(lambda x: self._embed(params, *x), (pairs, keys))
    shards, m = found.rows.shape
    found = jax.lax.all_gather(found, AXIS, tiled=True)
    found = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)
    index = jnp.arange(shards, dtype=jnp.int32)
    first = m * (jax.lax.axis_index(AXIS) * shards + index)
    totals, weights = jax.lax.map(
      lambda x: self._loss(x[0], x[1], found, x[2]), (pairs, users, first)
    )
    return totals.sum(), weights.sum()

  def _embed(
    self, params: PyTree, pairs: Pairs, key: Array
  ) -> tuple[Array, _Candidates]:
    """The users of a shard, and its candidates, the users' own first."""

    def both(model: TwoTowers) -> tuple[Array, Array]:
      items = model.embed_items(pairs.items.modalities, train=True)
      return model.embed_users(pairs.users.modalities, items, train=True), items

    users, items = self.model.apply(
      {"params": params}, method=both, rngs={"dropout": key}
    )
    slots = jnp.concatenate([pairs.positives, pairs.negatives])
    real = (pairs.users.weights > 0) & self.in_batch
    return users, _Candidates(
      vectors=items[slots],
      rows=pairs.items.indices[slots],
      log_expected=pairs.log_expected[slots],
      of_all=jnp.concatenate([real, jnp.ones(pairs.negatives.shape, bool)]),
    )

  def _loss(
    self, pairs: Pairs, users: Array, found: _Candidates, first: Array
  ) -> tuple[Array, Array]:
    """Of the users of a shard, whose own candidates are from `first` on."""
    own = first + jnp.arange(len(users), dtype=jnp.int32)
    columns = jnp.arange(len(found.rows), dtype=jnp.int32)
    candidates = jnp.broadcast_to(found.of_all[None], (len(users), len(columns)))
    if self.mask_seen and HISTORY in pairs.users.modalities:
      history = pairs.users.modalities[HISTORY]
      if self.model.tie_item_tower:
        history = history.replace(values=pairs.items.indices[history.values])
      candidates = candidates & ~seen(history, found.rows)
    candidates = candidates | (columns[None] == own[:, None])
    logits = (users @ found.vectors.T).astype(jnp.float32) / self.temperature
    weights = pairs.users.weights
    return loss(logits, found.rows, own, found.log_expected, candidates, weights)


@flax.struct.dataclass
class _Candidates:
  """`m` items to tell an item from: vectors, rows, logs, and which are everybody's."""

  vectors: Float[Array, "m d"]
  rows: Int[Array, "m"]
  log_expected: Float[Array, "m"]
  of_all: Bool[Array, "m"]
