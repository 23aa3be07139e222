"""The set model: an encoder per modality, a fusion and a head."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import ml_collections
from jaxtyping import Float

from deepsets_jax.data.tables.schema import Modality, Schema
from deepsets_jax.encoders import (
  ENCODERS,
  MLP,
  SequenceEncoder,
  activation,
)
from deepsets_jax.encoders.sequence import POSITIONS
from deepsets_jax.foundation import extensions
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion import Fusion
from deepsets_jax.fusion.settings import fusion_settings, get_fusion, group_of
from deepsets_jax.ragged import Ragged, pooling

# Fields of encoders that the model fills in from the data and its own settings.
_FILLED_IN = {"features", "dtype", "vocabulary_size", "groups"}


class Head(nn.Module):
  """An MLP from the fused vector to the logits, in float32.

  Attributes:
    bias: Initial bias of the `k` logits, see `losses.prior_logits`.
    input_norm: Whether a LayerNorm is applied to the fused vector first. After a sum
      pool it removes the size of the set, up to the mean.
    input_activation: Activation of the fused vector after the norm, a name in
      `layers.ACTIVATIONS`, or None.
    input_dropout: Dropout rate on the fused vector after both, from 0 to below 1.
    project: Whether a dense layer makes the logits. Otherwise the last vector plus a
      learned bias are the logits, so it must be `k` wide.
    hidden: Widths of the hidden layers; empty for none.
    norm: Whether a LayerNorm stands before each hidden activation.
    dropout: Dropout rate after each hidden activation, from 0 to below 1.
    activation: Activation of the hidden layers, a name in `layers.ACTIVATIONS`.
    dtype: Type of the computation of the hidden layers.

  Raises:
    ConfigError: Without `project` the last vector is not `k` wide.
  """

  bias: Sequence[float]
  hidden: Sequence[int] = ()
  input_norm: bool = False
  input_activation: str | None = None
  input_dropout: float = 0.0
  project: bool = True
  norm: bool = False
  dropout: float = 0.0
  activation: str = "relu"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b f"], *, train: bool) -> Float[Array, "b k"]:
    if self.input_norm:
      x = nn.LayerNorm()(x)
    if self.input_activation is not None:
      x = activation(self.input_activation)(x)
    x = nn.Dropout(self.input_dropout, deterministic=not train)(x)
    mlp = MLP(self.hidden, self.norm, self.dropout, self.activation, self.dtype)
    x = mlp(x, train=train).astype(jnp.float32)
    bias = jnp.asarray(self.bias, jnp.float32)
    if self.project:
      return nn.Dense(len(self.bias), bias_init=lambda *_: bias)(x)
    if x.shape[-1] != len(bias):
      raise ConfigError(
        f"config.model.head.project is False, and the head's last vector is"
        f" {x.shape[-1]} wide, not {len(bias)}; change the width, or set project"
      )
    return x + self.param("bias", lambda _: bias)[None]


class SetModel(nn.Module):
  """A model of encoders, a fusion and a head.

  `analysis.attribution.rollout.attention_weights` gives the weight of each element in
  the attention of the model.

  Attributes:
    encoders: The encoder of each modality. A batch may have any of the modalities.
    fusion: A `fusion.Fusion` from encoded modalities to one vector per example.
    head: A module from fused vectors to logits, such as `Head`.
  """

  encoders: Mapping[str, nn.Module]
  fusion: nn.Module
  head: nn.Module

  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool = False
  ) -> Float[Array, "b k"]:
    """Returns the logits. In training, needs a "dropout" key."""
    return self.head(self.embed(modalities, train=train), train=train)

  def classify(self, fused: Float[Array, "b f"]) -> Float[Array, "b k"]:
    """Returns the logits of fused vectors."""
    return self.head(fused, train=False)

  def embed(
    self, modalities: Mapping[str, Ragged], *, train: bool = False
  ) -> Float[Array, "b f"]:
    """Returns the fused vector of each example."""
    fused = self.fusion(self._encode(modalities, train), train=train)
    if fused.ndim != 2:
      raise ConfigError(
        f"the fusion {type(self.fusion).__name__} returns an array of the shape"
        f" {fused.shape}, expected (examples, features)"
      )
    return fused

  def lift(self, modalities: Mapping[str, Ragged]) -> dict[str, Any]:
    """Returns the partial state of each modality, if the fusion merges them."""
    return self.fusion.lift(self._encode(modalities, train=False))

  def finish(self, state: Any) -> Float[Array, "b k"]:
    """Returns the logits of a merged state."""
    return self.head(self.fusion.finish(state), train=False)

  def _encode(self, modalities: Mapping[str, Ragged], train: bool) -> dict[str, Ragged]:
    unknown = sorted(set(modalities) - set(self.encoders))
    if unknown:
      raise ConfigError(
        f"unknown modality {unknown[0]!r}; the model has {sorted(self.encoders)}"
      )
    return {
      name: self.encoders[name](ragged, train=train)
      for name, ragged in modalities.items()
    }


def build_set_model(
  config: ml_collections.ConfigDict, schema: Schema, bias: Sequence[float]
) -> SetModel:
  """Builds the model of a data set from `config.model`.

  Args:
    config: The settings `config.model`.
    schema: The modalities of the data set.
    bias: Initial bias of the logits, one number per logit.

  Raises:
    ConfigError: An unknown fusion, pool, activation or dtype, or positions that a
      modality cannot have.
  """
  dtype = _dtype(config.dtype)
  _check_order(config, schema)
  encoders = {
    name: _encoder(name, modality, config, dtype)
    for name, modality in schema.modalities.items()
  }
  return SetModel(
    encoders=encoders,
    fusion=_fusion(config, schema, dtype),
    head=Head(tuple(bias), dtype=dtype, **config.head),
  )


def _check_order(config: ml_collections.ConfigDict, schema: Schema) -> None:
  """Checks the modalities that `sequence`, `positions` and `fading` name."""
  names = sorted(schema.modalities)
  for key, wanted in (
    ("sequence.modalities", config.sequence.modalities),
    ("positions", _positions(config)),
    ("fading", config.fading),
  ):
    unknown = sorted(set(wanted) - set(names))
    if unknown:
      raise ConfigError(
        f"config.model.{key}: no modality {unknown[0]!r}; the data has {names}"
      )
  for name in config.fading:
    if not schema.modalities[name].ordered:
      raise ConfigError(
        f"config.model.fading: {name!r} is declared unordered, so its elements have no"
        " order; leave it out, or declare it ordered in the schema"
      )
  for name, kind in _positions(config).items():
    if kind not in POSITIONS:
      raise ConfigError(
        f"unknown config.model.positions.{name} {kind!r}; one of {sorted(POSITIONS)}"
      )
    if not (schema.modalities[name].ordered or schema.modalities[name].timed):
      raise ConfigError(
        f"config.model.positions.{name} is {kind!r}, but the modality is declared"
        " unordered; leave the positions out, or declare it ordered in the schema"
      )
    if kind == "rotary" and name not in config.sequence.modalities:
      raise ConfigError(
        f"config.model.positions.{name} is 'rotary', which turns a transformer's"
        f" queries and keys; add {name!r} to config.model.sequence.modalities, or"
        " choose 'sinusoidal', 'learned' or 'recency'"
      )


def _positions(config: ml_collections.ConfigDict) -> dict[str, str]:
  """The kind of position embedding of each modality that has one."""
  return {name: kind for name, kind in config.positions.items() if kind is not None}


def _encoder(
  name: str, modality: Modality, config: ml_collections.ConfigDict, dtype: Any
) -> nn.Module:
  elements = _element_encoder(name, modality, config, dtype)
  positions, fading = _positions(config).get(name), name in config.fading
  settings = config.sequence.to_dict()
  if name not in settings.pop("modalities"):
    settings["layers"] = 0
  if not settings["layers"] and positions is None and not fading:
    return elements
  return SequenceEncoder(
    elements,
    config.features,
    positions,
    fading,
    dtype=dtype,
    valued=modality.valued,
    **settings,
  )


def _element_encoder(
  name: str, modality: Modality, config: ml_collections.ConfigDict, dtype: Any
) -> nn.Module:
  """The encoder of single elements: that of the kind, or one of a user's own."""
  chosen = config.encoders.get(name)
  if chosen is None:
    kind = _kind_of_encoder(modality, config.features)
    settings = {"fields": config.token, "token": config.token, "dense": config.dense}
    given = dict(settings.get(kind, {}))
  else:
    given = {"name": chosen} if isinstance(chosen, str) else dict(chosen)
    kind = given.pop("name")
  module = extensions.find(f"config.model.encoders.{name}", kind, ENCODERS, nn.Module)
  fields = {field.name for field in dataclasses.fields(module)} - {"parent", "name"}
  unknown = sorted(set(given) - fields)
  if unknown:
    raise ConfigError(
      f"config.model: the encoder {kind!r} has no setting {unknown[0]!r}; it has"
      f" {sorted(fields - _FILLED_IN)}"
    )
  filled_in = {
    "features": config.features,
    "dtype": dtype,
    "vocabulary_size": modality.size,
    "groups": modality.groups,
  }
  return module(**{k: v for k, v in filled_in.items() if k in fields}, **given)


def _kind_of_encoder(modality: Modality, features: int) -> str:
  """The key in `ENCODERS` for a modality whose encoder the config leaves open."""
  if modality.valued:
    return "fields"
  if modality.kind == "tokens":
    return "token"
  # Such vectors were encoded by another model, into the same space.
  is_encoded = modality.encoded and modality.size == features
  return "scaled" if is_encoded else "dense"


def _fusion(config: ml_collections.ConfigDict, schema: Schema, dtype: Any) -> Fusion:
  group = config.get(group_of(config.fusion), {})
  settings = {key: _with_pools(key, value) for key, value in group.items()}
  # Says which settings there are, where one does not exist.
  settings = fusion_settings(config.fusion, **settings).to_dict()
  if config.fusion in ("set_pool", "concat"):
    _check_pools(config.fusion, settings["pools"])
  return get_fusion(config.fusion)(
    modalities=tuple(schema.modalities),
    features=config.features,
    dtype=dtype,
    **settings,
  )


def _check_pools(fusion: str, pools: Sequence[Any]) -> None:
  try:
    for name in pools:
      pooling.get(name)
  except ValueError as error:
    raise ConfigError(f"config.model.{fusion}.pools: {error}") from error


def _with_pools(key: str, value: Any) -> Any:
  """The value of a setting, with the pools that `module:Name` stands for."""
  if isinstance(value, str) and ":" in value:
    pool = extensions.find(f"config.model, {key}", value, {})
    return pool() if isinstance(pool, type) else pool
  if isinstance(value, list | tuple):
    return tuple(_with_pools(key, one) for one in value)
  return value


def _dtype(name: str) -> Any:
  dtypes = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
  if name not in dtypes:
    raise ConfigError(f"unknown config.model.dtype {name!r}; one of {sorted(dtypes)}")
  return dtypes[name]
