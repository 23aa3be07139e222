"""Options of attention: masks, a bias by relative position, and dropout."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from deepsets_jax.ragged.attention.rows import MOST_ROWS, real


@flax.struct.dataclass
class Options:
  """Options of `attend`, checked. Made by `options`.

  Attributes:
    bias: Added to the logits by relative position, `[h, 2 r + 1]`, or None.
    key: Random key of the dropout, or None for no dropout.
    causal: Whether a query sees no key of a later position.
    window: A query sees keys at distances less than this; None for all of them.
    dropout_rate: Probability that a weight is dropped.
  """

  bias: Float[Array, "h r"] | None = None
  key: PRNGKeyArray | None = None
  causal: bool = flax.struct.field(pytree_node=False, default=False)
  window: int | None = flax.struct.field(pytree_node=False, default=None)
  dropout_rate: float = flax.struct.field(pytree_node=False, default=0.0)

  @property
  def masks(self) -> bool:
    """Whether a query may be unable to see some keys of its segment."""
    return self.causal or self.window is not None

  def visible(self, rows_q: Array, rows_k: Array, shift=0) -> Bool[Array, "... 1 a z"]:
    """Where the query of a row sees the key of a row.

    Args:
      rows_q: Rows of queries, `[..., a]`, of successive positions.
      rows_k: Rows of keys, `[..., z]`, of successive positions.
      shift: Position of the first of these keys less that of the first query.
    """
    mask = real(rows_q)[..., None, :, None] & real(rows_k)[..., None, None, :]
    if not self.masks:
      return mask
    of_key, of_query = (
      jax.lax.broadcasted_iota(jnp.int32, mask.shape, mask.ndim - axis)
      for axis in (1, 2)
    )
    distance = of_key - of_query + shift
    if self.causal:
      mask &= distance <= 0
    if self.window is not None:
      mask &= jnp.abs(distance) < self.window
    return mask

  def kept(self, *counters, shape: tuple[int, ...]) -> Float[Array, "..."] | None:
    """Factors of the weights, 0 or 1 / (1 - rate); None without dropout.

    They depend on the key and on integers that tell apart the tiles and blocks, so
    that the backward pass draws those of the forward pass again.
    """
    if self.key is None:
      return None
    key = self.key
    for counter in counters:
      key = jax.random.fold_in(key, counter)
    keep = 1 - self.dropout_rate
    kept = jax.random.bernoulli(key, keep, shape)
    return jnp.where(kept, 1 / keep if keep else 0.0, 0.0)


def options(
  heads: int,
  causal: bool = False,
  window: int | None = None,
  bias: Float[Array, "h r"] | None = None,
  dropout_rate: float = 0.0,
  key: PRNGKeyArray | None = None,
) -> Options:
  """The options of `attend` for this number of query heads.

  Raises:
    ValueError: A window below 1, a bias of another shape than `[heads, 2 r + 1]`, a
      dropout rate outside 0 to 1, or one above 0 without a key.
  """
  if window is not None and window < 1:
    raise ValueError(
      f"attention with window={window}: a query sees keys at distances less than the"
      " window; give 1 or more, or None for all keys"
    )
  if bias is not None and (
    bias.ndim != 2 or bias.shape[0] != heads or bias.shape[1] % 2 == 0
  ):
    raise ValueError(
      f"attention of {heads} query heads with a bias of shape {list(bias.shape)}: give"
      f" [{heads}, 2 r + 1], the relative positions from -r to r"
    )
  if not 0 <= dropout_rate <= 1:
    raise ValueError(
      f"attention with dropout_rate={dropout_rate}: give a probability from 0 to 1"
    )
  if dropout_rate and key is None:
    raise ValueError(
      f"attention with dropout_rate={dropout_rate} needs a random key; give key, or a"
      " rate of 0 in evaluation"
    )
  # No two positions are further apart than this.
  window = None if window is None or window >= MOST_ROWS else window
  return Options(bias, key if dropout_rate else None, causal, window, dropout_rate)


def bias_of(bias: Float[Array, "h r"], shift, a: int, z: int) -> Float[Array, "h a z"]:
  """The bias of each of `a` queries and `z` keys of successive positions.

  Args:
    bias: By relative position, `[h, 2 r + 1]`; further ones take that of the ends.
    shift: Position of the first key less that of the first query.
  """
  most = bias.shape[1] // 2
  # By diagonal, gathered; then rows that each begin one number earlier. The gradient
  # adds diagonals up before it scatters them.
  distances = jnp.arange(a + z, dtype=jnp.int32) - (a - 1) + shift
  by_diagonal = jnp.take(
    bias, jnp.clip(distances, -most, most) + most, axis=1, mode="clip"
  )
  rows = jnp.broadcast_to(by_diagonal[:, None], (len(bias), a, a + z))
  rows = rows.reshape(len(bias), -1)[:, a - 1 : -1]
  return rows.reshape(len(bias), a, a + z - 1)[:, :, :z]


def bias_gradient(bias, shift, of_logits):
  """The gradient of the bias from that of logits, `[h, a, z]`."""
  _, pull = jax.vjp(lambda b: bias_of(b, shift, *of_logits.shape[1:]), bias)
  return pull(of_logits)[0]
