"""The sampled softmax loss of retrieval, with in-batch and uniform negatives."""

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
  """Compute the cross-entropy in nats of each user's positive among the candidates.

  The logit of a candidate is corrected by the log of the expected number of times that
  its item is a candidate. Without the correction popular items, which are positives of
  many users, would be pushed down (Bengio and Senecal, 2008; Yi et al., 2019,
  "Sampling-Bias-Corrected Neural Modeling"). Candidates that happen to be the same item
  as the positive are left out.

  Args:
    logits: Products of user and candidate vectors over the temperature.
    rows: Item row of each candidate.
    own: Position of each user's positive among the candidates.
    log_expected: Log of the expected count of each candidate, see `pairs.Pairs`.
    candidates: Which candidates count for which user; the positive always does.
    weights: Weight of each user; 0 for padding.

  Returns:
    The weighted sum over users, and the sum of their weights.
  """
  by_chance = (rows[None] == rows[own][:, None]) & (
    jnp.arange(len(rows), dtype=own.dtype)[None] != own[:, None]
  )
  corrected = logits - log_expected[None]
  corrected = jnp.where(candidates & ~by_chance, corrected, -jnp.inf)
  # The positive of a padding user may not be a candidate. Its loss does not count.
  losses = jax.nn.logsumexp(jnp.where(weights[:, None] > 0, corrected, 0), axis=1)
  losses = losses - jnp.take_along_axis(corrected, own[:, None], axis=1)[:, 0]
  return jnp.sum(jnp.where(weights > 0, losses, 0) * weights), jnp.sum(weights)


def seen(history: Ragged, rows: Int[Array, "m"]) -> Bool[Array, "b m"]:
  """Whether each item is in the history of each user.

  Args:
    history: Item rows in the history of each user.
    rows: Item rows to look up; an item may occur several times.
  """
  order = jnp.sort(rows)
  # The first copy of an item stands for all of its copies.
  first = jnp.searchsorted(order, history.values)
  first = jnp.minimum(first, len(rows) - 1)
  there = order[first] == history.values
  marks = jnp.zeros((history.num_examples, len(rows)), bool)
  marks = marks.at[history.segment_ids, first].max(there, mode="drop")
  return marks[:, jnp.searchsorted(order, rows)]


@dataclasses.dataclass(frozen=True)
class SampledSoftmax:
  """The loss of `Pairs`, an objective for `step.build_step`.

  The candidates are the positives of all users of a shard, if `in_batch`, and uniform
  negatives. With both this is mixed negative sampling (Yang et al., 2020). Without
  in-batch negatives, and with all items as uniform negatives, it is the full softmax.

  Attributes:
    model: The two towers.
    temperature: Divides the products of vectors.
    in_batch: Whether the positives of other users are candidates.
    mask_seen: Whether to leave out the items in a user's history. Use it if no user
      interacts with an item twice.
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

  def shard_loss(self, params: PyTree, pairs: Pairs, key: Array) -> tuple[Array, Array]:
    """Summed loss and weight of a shard, with its own candidates."""
    users, found = self._embed(params, pairs, key)
    return self._loss(pairs, users, found, jnp.zeros((), jnp.int32))

  def device_loss(
    self, params: PyTree, pairs: Pairs, keys: Array
  ) -> tuple[Array, Array]:
    """Summed loss and weight of the shards `[s, ...]` of a device, with a key each.

    The candidates of all shards are gathered from all devices.
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
    """Vectors of the users of a shard, and its candidates: first their positives."""

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
    """Loss of the users of a shard, whose positives begin at candidate `first`."""
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
  """`m` candidates: vectors, item rows, logs of expected counts, and `of_all`.

  `of_all` is true for candidates of all users, and false for those of one user.
  """

  vectors: Float[Array, "m d"]
  rows: Int[Array, "m"]
  log_expected: Float[Array, "m"]
  of_all: Bool[Array, "m"]
