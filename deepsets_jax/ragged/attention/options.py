"""Options of attention: masks, a bias by relative position, and dropout."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from deepsets_jax.ragged.attention.rows import MOST_ROWS, in_range

_STATIC = {"static": True}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Options:
  """Checked options of `attend`. Built by `make_options`.

  Attributes:
    bias: Added to the logits by relative position, `[h, 2 r + 1]`, or None.
    key: Random key of the dropout; None for no dropout.
    causal: Hide keys of later positions from a query.
    window: A query sees keys at distances less than this; None for all of them.
    dropout_rate: Probability that a weight is dropped.
  """

  bias: Float[Array, "h r"] | None = None
  key: PRNGKeyArray | None = None
  causal: bool = dataclasses.field(metadata=_STATIC, default=False)
  window: int | None = dataclasses.field(metadata=_STATIC, default=None)
  dropout_rate: float = dataclasses.field(metadata=_STATIC, default=0.0)

  @property
  def masks(self) -> bool:
    """Whether a mask may hide keys of its segment from a query."""
    return self.causal or self.window is not None

  def visible(self, rows_q: Array, rows_k: Array, shift=0) -> Bool[Array, "... 1 a z"]:
    """Return True for each pair of a query and a key that it sees.

    Args:
      rows_q: Rows of queries, `[..., a]`, of successive positions.
      rows_k: Rows of keys, `[..., z]`, of successive positions.
      shift: Position of the first of these keys minus that of the first query.
    """
    mask = in_range(rows_q)[..., None, :, None] & in_range(rows_k)[..., None, None, :]
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

  def dropout(self, *counters, shape: tuple[int, ...]) -> Float[Array, "..."] | None:
    """Draw factors of the weights, 0 or 1 / (1 - rate); None without dropout.

    They depend on the key and on integers that identify the tile or block, so that the
    backward pass draws the factors of the forward pass again.
    """
    if self.key is None:
      return None
    key = self.key
    for counter in counters:
      key = jax.random.fold_in(key, counter)
    keep = 1 - self.dropout_rate
    kept = jax.random.bernoulli(key, keep, shape)
    return jnp.where(kept, 1 / keep if keep else 0.0, 0.0)


def make_options(
  heads: int,
  causal: bool = False,
  window: int | None = None,
  bias: Float[Array, "h r"] | None = None,
  dropout_rate: float = 0.0,
  key: PRNGKeyArray | None = None,
) -> Options:
  """Check the options of `attend` for this number of query heads.

  Raises:
    ValueError: The window is below 1, the bias is not `[heads, 2 r + 1]`, the dropout
      rate is not in 0 to 1, or it is above 0 without a key.
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
  """Return the bias of each pair of `a` queries and `z` keys of successive positions.

  Args:
    bias: Bias per relative position from -r to r, `[h, 2 r + 1]`; positions further
      apart take the bias of the ends.
    shift: Position of the first key minus that of the first query.
  """
  most = bias.shape[1] // 2
  # One number per diagonal is gathered; then each row begins one number earlier than
  # the row before. The gradient sums the diagonals before it scatters them.
  distances = jnp.arange(a + z, dtype=jnp.int32) - (a - 1) + shift
  by_diagonal = jnp.take(
    bias, jnp.clip(distances, -most, most) + most, axis=1, mode="clip"
  )
  rows = jnp.broadcast_to(by_diagonal[:, None], (len(bias), a, a + z))
  rows = rows.reshape(len(bias), -1)[:, a - 1 : -1]
  return rows.reshape(len(bias), a, a + z - 1)[:, :, :z]


def bias_gradient(bias, shift, of_logits):
  """Return the gradient of the bias, given that of the logits, `[h, a, z]`."""
  _, pull = jax.vjp(lambda b: bias_of(b, shift, *of_logits.shape[1:]), bias)
  return pull(of_logits)[0]
