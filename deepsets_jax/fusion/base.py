"""What every fusion is: a dictionary of encoded modalities to a vector per example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax.ragged import Ragged


class Fusion(nn.Module):
  """A dictionary of encoded modalities to one vector per example.

  A fusion of your own is a subclass with `__call__` and an entry in `FUSIONS`; its
  further attributes are its settings, `config.model.<name>`.

  The modalities in a batch share `b` and `d`. One that is not in the dictionary is
  absent from all of its examples, and the result is as if it were there with empty
  sets. So parameters of a modality must not depend on its being in the batch.

  Attributes:
    modalities: All modalities, in the order of the schema.
    features: `d`, of an encoded element.
    dtype: Of the computation; parameters, pools and results are float32.
  """

  modalities: Sequence[str]
  features: int
  dtype: Any = jnp.float32

  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    """The fused vector of each example. In training, may need a "dropout" key."""
    raise NotImplementedError


def modality_codes(fusion: Fusion) -> dict[str, Float[Array, "1 d"]]:
  """A learned vector for each modality, in a compact call.

  It starts at a length of about 0.1: an element may have a small weight, and would
  drown in a code of length 1.
  """
  init = nn.initializers.normal(0.1 * fusion.features**-0.5)
  return {
    name: fusion.param(f"code_{name}", init, (1, fusion.features)).astype(fusion.dtype)
    for name in fusion.modalities
  }


def check_present(modalities: Mapping[str, Ragged]) -> None:
  """Raises where no modality at all is given."""
  if not modalities:
    raise ValueError(
      "a batch without any modality: its number of examples is unknown; pass at"
      " least one modality, with empty sets if need be"
    )
