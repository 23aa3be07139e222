"""The interface of all fusions, and what several of them use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged


class Fusion(nn.Module):
  """Fuses the encoded modalities of each example into one vector.

  To write a fusion of your own, subclass this class and define `__call__`; a config
  names it `module:Class`. Its further fields, each with a default, are its settings.

  All modalities of a batch have the same number of examples `b` and the same width `d`.
  A modality that is not in the dictionary is absent from all examples, and the result
  is the same as if it were there with empty sets. Therefore parameters must exist
  whether or not a modality is in the batch.

  A fusion that attends reports its attention, see `encoders.importance`;
  `analysis.attribution.rollout` turns the reports into a weight for each element. A
  fusion that computes such weights itself sows them as "attention": float32 `[n]` by
  modality, at least 0 and 0 on padding.

  Attributes:
    modalities: Names of all modalities, in the order of the schema.
    features: Width `d` of an encoded element.
    dtype: Type of the computation; parameters, pools and results are float32.
  """

  # Whether partial states of modalities can be merged by `lift`, `merge` and `finish`.
  merges = False

  modalities: Sequence[str]
  features: int
  dtype: Any = jnp.float32

  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    """Returns the fused vector of each example.

    Args:
      modalities: Encoded elements `[n, d]` by modality; at least one modality.
      train: Whether dropout is on. A fusion with dropout then needs a "dropout" key.

    Raises:
      ConfigError: No modality is given, or a setting is not legal.
    """
    raise NotImplementedError


def modality_codes(fusion: Fusion) -> dict[str, Float[Array, "1 d"]]:
  """Learned vectors, one for each modality; call it in a compact method.

  A code starts at a length of about 0.1. An element may have a small weight, and would
  be lost beside a code of length 1.
  """
  init = nn.initializers.normal(0.1 * fusion.features**-0.5, jnp.float32)
  return {
    name: fusion.param(f"code_{name}", init, (1, fusion.features)).astype(fusion.dtype)
    for name in fusion.modalities
  }


def check_present(modalities: Mapping[str, Ragged]) -> None:
  """Checks that at least one modality is given.

  Raises:
    ConfigError: The dictionary is empty.
  """
  if not modalities:
    raise ConfigError(
      "a batch without any modality: its number of examples is unknown; pass at"
      " least one modality, its sets may be empty"
    )
