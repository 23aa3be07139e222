"""Scores of pairs of users and items in chunks of fixed size, and their metrics.

Axes besides the usual: `q` users, `i` items, `p` pairs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from deepsets_jax.models.scorer import Scorer
from deepsets_jax.ragged import Ragged
from deepsets_jax.tasks.retrieval import blocks, ranks
from deepsets_jax.tasks.retrieval import metrics as retrieval_metrics
from deepsets_jax.training import flops

# Number of pairs of a chunk.
_PAIRS = 1 << 14
# Number of users whose scores of all items are held at a time.
_USERS = 64
# Number of sampled items that a target is ranked among in the sampled protocol.
_SAMPLED = 100


@dataclasses.dataclass(frozen=True)
class PairScorer:
  """Scores pairs of vectors on one device, which suffices: the vectors are small.

  Attributes:
    model: The scorer.
  """

  model: Scorer

  def scores(
    self,
    params: PyTree,
    users: Float[Array, "q d"],
    items: Float[Array, "i d"],
    user_rows: Int[np.ndarray, "p"],
    item_rows: Int[np.ndarray, "p"],
  ) -> Float[np.ndarray, "p"]:
    """Compute the logits of pairs, given as rows of users and items.

    The logit of a pair does not depend on the other pairs.
    """
    found = np.zeros(len(user_rows), np.float32)
    for begin in range(0, len(found), _PAIRS):
      chunk = slice(begin, begin + _PAIRS)
      rows = [x[chunk].astype(np.int32) for x in (user_rows, item_rows)]
      padding = (0, _PAIRS - len(rows[0]))
      scores = self._of_chunk(params, users, items, *(np.pad(x, padding) for x in rows))
      found[chunk] = np.asarray(scores)[: len(rows[0])]
    return found

  def of_all(
    self,
    params: PyTree,
    users: Float[np.ndarray, "q d"],
    items: Float[np.ndarray, "i d"],
    targets: Ragged,
    known: Ragged,
    user_rows: Int[np.ndarray, "q"],
    ks: Sequence[int],
  ) -> dict[str, float]:
    """Score all items for each user, and compute `retrieval.metrics.of_ranks`.

    Metrics among 100 sampled items (`ranks.among_sampled`) have the prefix "sampled_".
    They are missing if a user has fewer items to sample from.

    Args:
      params: Parameters of the model.
      users: Vectors of the users of a split.
      items: Vectors of all items.
      targets: Item rows that each user should find.
      known: Item rows that each user has seen before, which are left out.
      user_rows: Rows of the users in their table.
      ks: Lengths of lists.
    """
    full, sampled = [], []
    taken = np.diff(targets.offsets) + np.diff(known.offsets)
    enough = len(items) - taken.max(initial=0) >= _SAMPLED
    users, items = jax.device_put(users), jax.device_put(items)
    for begin in range(0, len(users), _USERS):
      rows = np.arange(begin, min(begin + _USERS, len(users)))
      every = np.tile(np.arange(len(items)), len(rows))
      scores = self.scores(params, users, items, np.repeat(rows, len(items)), every)
      scores = scores.reshape(len(rows), -1)
      wanted, seen = (blocks.take(lists, rows) for lists in (targets, known))
      full.append(ranks.of_scores(scores, wanted, seen))
      if enough:
        among = dict(n=_SAMPLED, user_rows=user_rows[rows])
        sampled.append(ranks.among_sampled(scores, wanted, seen, **among))
    lengths = np.diff(targets.offsets)
    found = retrieval_metrics.of_ranks(np.concatenate(full), lengths, ks)
    if enough:
      weaker = retrieval_metrics.of_ranks(np.concatenate(sampled), lengths, ks)
      found |= {f"sampled_{name}": value for name, value in weaker.items()}
    return found

  @functools.cached_property
  def _of_chunk(self) -> Callable[..., Array]:
    def score(params, users, items, user_rows, item_rows):
      return self.model.apply(
        {"params": params}, users[user_rows], items[item_rows], method="score"
      )

    return jax.jit(score)


def cost(
  model: Scorer, params: PyTree, pairs: int, examples: float
) -> dict[str, float]:
  """Parameters and FLOPs of the scorer without its towers, see `costs.model_parts`.

  Args:
    model: The scorer.
    params: Shapes of its parameters.
    pairs: Number of candidate slots of a shard.
    examples: Number of lists of a shard.
  """
  own = {name: part for name, part in params.items() if name != "towers"}
  own = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), own)
  width = len(model.towers.users.head.bias)
  vectors = jax.ShapeDtypeStruct((pairs, width), jnp.float32)

  def program(own: PyTree, users: Array, items: Array) -> tuple:
    def score(*inputs):
      return model.apply({"params": inputs[0]}, *inputs[1:], method="score")

    logits, pull_back = jax.vjp(score, own, users, items)
    return logits, pull_back(jnp.ones_like(logits))

  return {
    "parameters": sum(leaf.size for leaf in jax.tree.leaves(own)),
    "flops_per_example": flops.count(program, own, vectors, vectors) / examples,
  }
