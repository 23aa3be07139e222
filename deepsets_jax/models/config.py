"""The settings of a set model, `config.model`, and their defaults."""

from __future__ import annotations

from typing import Any

import ml_collections
from ml_collections import config_dict

from deepsets_jax.fusion import FUSIONS
from deepsets_jax.fusion.settings import fusion_settings, group_of


def default_model() -> ml_collections.ConfigDict:
  """The settings of a set model with a set pool."""
  return config_dict.create(
    # Width of the space that all elements are encoded into.
    features=256,
    # Type of the computation: "float32" or "bfloat16". Parameters, pools and losses are
    # float32.
    dtype="float32",
    # Encoder of token modalities: an embedding, then an MLP. For the cells of many
    # columns (kind "fields") the MLP reads a vector of the column and one of its value.
    token=_mlp(),
    # Encoder of vector modalities: an MLP.
    dense=_mlp(),
    # Encoders of your own, by modality: module:Class, or a group with that as `name`
    # and the settings of the class beside it.
    encoders=ml_collections.ConfigDict(),
    # Transformers over the elements of a modality, before the fusion.
    sequence=_sequence(),
    # How an ordered modality encodes the position or time of its elements, by modality:
    # "rotary" (needs a transformer in `sequence`), "sinusoidal", "learned" or
    # "recency".
    positions=ml_collections.ConfigDict(),
    # The ordered modalities whose elements fade: each feature is multiplied by a
    # learned factor of the number of later elements.
    fading=(),
    # The fusion: a key of `deepsets_jax.fusion.FUSIONS`, or module:Class for one of
    # your own. Its settings are the group of that name; without it, the defaults.
    fusion="set_pool",
    set_pool=fusion_settings("set_pool"),
    # From the fused vector to the logits: an MLP and a dense layer.
    head=_mlp()
    | dict(
      # Whether a LayerNorm comes first.
      input_norm=False,
      # Activation of the fused vector: as `activation`, or None.
      input_activation=config_dict.placeholder(str),
      # Dropout probability of the fused vector.
      input_dropout=0.0,
      # Whether a dense layer makes the logits; without it the fused vector is the
      # logits, and must be as wide as they are.
      project=True,
    ),
  )


def set_fusion(model: ml_collections.ConfigDict, name: str, **settings: Any) -> None:
  """Chooses the fusion of `config.model`, with its settings.

  Args:
    model: The group to change, `config.model` or `config.item_model`.
    name: A key of `FUSIONS`, or `module:Class`.
    **settings: Settings that differ from the defaults.

  Raises:
    ConfigError: There is no such fusion, or it has no such setting.
  """
  group = fusion_settings(name, **settings)
  for other in FUSIONS:
    if other in model:
      del model[other]
  model.fusion = name
  model[group_of(name)] = group


def _sequence() -> dict[str, Any]:
  return dict(
    # The modalities that have a transformer.
    modalities=(),
    # Number of transformer blocks.
    layers=1,
    # Attention heads of a block; must divide `features`.
    heads=4,
    # Width of the feed-forward layers; None for four times `features`.
    hidden=config_dict.placeholder(int),
    # Dropout probability of the output of each half of a block.
    dropout=0.0,
  )


def _mlp() -> dict[str, Any]:
  return dict(
    # Widths of the hidden layers.
    hidden=(),
    # Whether a LayerNorm comes before each activation.
    norm=False,
    # Dropout probability after each activation.
    dropout=0.0,
    # "relu", "gelu", "silu" or "tanh".
    activation="relu",
  )
