"""What every fusion is: a dictionary of encoded modalities to a vector per example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from deepsets_jax.encoders.importance import forget_attended, sow_importance
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged, pooling


class Fusion(nn.Module):
  """A dictionary of encoded modalities to one vector per example.

  A fusion of your own is a subclass with `__call__` and an entry in `FUSIONS`; its
  further attributes are its settings, `config.model.<name>`.

  The modalities in a batch share `b` and `d`. One that is not in the dictionary is
  absent from all of its examples, and the result is as if it were there with empty
  sets. So parameters of a modality must not depend on its being in the batch.

  A fusion that attends sows in the collection "importance", as "attention", the weight
  of each element that it was given, in float32:

    _, sown = model.apply(variables, modalities, mutable=["importance"])
    weights = sown["importance"]["fusion"]["attention"]  # by modality `[n]`

  (without "fusion" where the fusion is called alone). They are 0 on padding, and add up
  to 1 over an example's elements of all modalities. If the collection is not mutable,
  they are not computed.

  Attributes:
    modalities: All modalities, in the order of the schema.
    features: `d`, of an encoded element.
    dtype: Of the computation; parameters, pools and results are float32.
  """

  # Whether modalities have partial states: `lift`, `merge` and `finish`.
  merges = False

  modalities: Sequence[str]
  features: int
  dtype: Any = jnp.float32

  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    """The fused vector of each example. In training, may need a "dropout" key."""
    raise NotImplementedError

  def sow_attention(self, weights: Mapping[str, Float[Array, "n"]]) -> None:
    """Sows the weights of elements by modality, and drops what they were made of."""
    sow_importance(self, "attention", dict(weights))
    forget_attended(self)


def modality_codes(fusion: Fusion) -> dict[str, Float[Array, "1 d"]]:
  """A learned vector for each modality, in a compact call.

  It starts at a length of about 0.1: an element may have a small weight, and would
  drown in a code of length 1.
  """
  init = nn.initializers.normal(0.1 * fusion.features**-0.5, jnp.float32)
  return {
    name: fusion.param(f"code_{name}", init, (1, fusion.features)).astype(fusion.dtype)
    for name in fusion.modalities
  }


def check_present(modalities: Mapping[str, Ragged]) -> None:
  """Raises where no modality at all is given."""
  if not modalities:
    raise ConfigError(
      "a batch without any modality: its number of examples is unknown; pass at"
      " least one modality, with empty sets if need be"
    )


def uniform(parts: Sequence[Ragged]) -> list[Float[Array, "n"]]:
  """A mass of 1 for each example, spread evenly over its elements of all parts."""
  count = sum(part.lengths for part in parts)
  share = 1 / jnp.maximum(count, 1).astype(jnp.float32)
  return [part.to_elements(share) for part in parts]


def spread_evenly(mass: Float[Array, "b"], elements: Ragged) -> Float[Array, "n"]:
  """Each example's mass over its elements; 0 on padding."""
  count = jnp.maximum(elements.lengths, 1).astype(jnp.float32)
  return elements.to_elements(mass / count)


def of_examples(
  mass: Float[Array, "m"], slots: Int[Array, "n"], part: Ragged
) -> Float[Array, "b"]:
  """Each example's mass at one of the parts that `ragged.concatenate` has joined."""
  column = jnp.take(mass, slots, axis=0, mode="fill", fill_value=0)[:, None]
  return pooling.pool("sum", part.replace(values=column))[:, 0]


def normalized(
  weights: Mapping[str, Float[Array, "n"]], modalities: Mapping[str, Ragged]
) -> dict[str, Float[Array, "n"]]:
  """The weights over their sum for each example, of all modalities."""
  columns = {k: v.replace(values=weights[k][:, None]) for k, v in modalities.items()}
  total = pooling.pool("sum", columns)[:, 0]
  total = jnp.where(total > 0, total, 1)
  return {
    name: weights[name] / part.to_elements(total, fill=1)
    for name, part in modalities.items()
  }
