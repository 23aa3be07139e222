"""The fusions of torchmultimodal, for modalities that may be absent or repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax.encoders import channels, deepset
from deepsets_jax.encoders.layers import MLP
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion.base import Fusion, check_present
from deepsets_jax.ragged import Ragged

_KINDS = ("attention", "concat", "deepset", "deepset_transformer")


class TorchMultimodalFusion(Fusion):
  """Pools each modality to one vector, and fuses the vectors.

  The deepset, attention and concat fusions of torchmultimodal
  (facebookresearch/multimodal) with three corrections: vectors are scaled before they
  are weighted, so that the scaling does not undo the attention; a pool reads the
  transformer, so that no modality stands out; and absent modalities take no part.

  In the kind "attention", and in a deepset with `apply_attention`, the weights of the
  modalities are sown in the collection "importance".

  Attributes:
    kind: "deepset" scales, weights and pools the vectors of modalities;
      "deepset_transformer" applies a transformer before the pool; "attention" adds up
      weighted projections of the vectors; "concat" concatenates them.
    element_pool: The pool from a modality's elements to its vector: a name in
      `pooling.POOLS`, or "median".
    pool: The pool from the modalities' vectors to one, for both deepsets: a name as for
      `element_pool`.
    apply_attention: Whether both deepsets multiply each vector by a learned weight.
    attention_dim: Width of the hidden layer of these weights; None for half of the
      features.
    modality_normalize: Whether both deepsets scale each feature along the modalities to
      length 1, instead of each vector along its features.
    norm_factor: The p of the p-norm of this scaling, at least 1.
    auto_mapping: Whether both deepsets apply a dense layer to each modality first.
    projection_dim: Width of the projections of "attention", None for `features`; or of
      the dense layer of "concat", None for no layer. Without this layer zeros stand in
      the place of an absent modality.
    heads: Number of attention heads of the transformer; must divide the features.
    layers: Number of transformer layers.
    ffn: Width of their hidden layers.
    transformer_dropout: Dropout rate in the transformer, from 0 to below 1.
    hidden: Widths of the hidden layers of an MLP after the fusion; empty for no MLP.
    norm: Whether a LayerNorm stands before each activation of the MLP.
    dropout: Dropout rate after each activation of the MLP, from 0 to below 1.
    activation: Activation of the MLP, a name in `layers.ACTIVATIONS`.
    parity: Whether the results are exactly those of torchmultimodal. Every modality
      must then be in the batch, and counts as a vector of zeros in an example without
      its elements.

  Raises:
    ConfigError: `kind` is unknown, or with `parity` a modality is absent.
  """

  kind: str = "deepset"
  element_pool: str = "mean"
  pool: str = "mean"
  apply_attention: bool = False
  attention_dim: int | None = None
  modality_normalize: bool = False
  norm_factor: float = 2.0
  auto_mapping: bool = False
  projection_dim: int | None = None
  heads: int = 8
  layers: int = 1
  ffn: int = 2048
  transformer_dropout: float = 0.1
  hidden: Sequence[int] = ()
  norm: bool = False
  dropout: float = 0.0
  activation: str = "relu"
  parity: bool = False

  @nn.compact
  def __call__(
    self, modalities: Mapping[str, Ragged], *, train: bool
  ) -> Float[Array, "b f"]:
    check_present(modalities)
    if self.kind not in _KINDS:
      raise ConfigError(
        f"torchmultimodal: unknown kind {self.kind!r}; one of {list(_KINDS)}"
      )
    if self.parity:
      self._check_complete(modalities)
    pool = deepset.Pooling(self.element_pool, self.dtype, name="element_pooling")
    vectors = {name: pool(modalities[name]) for name in sorted(modalities)}
    present = {name: part.lengths > 0 for name, part in modalities.items()}
    fused = self._fuse(vectors, None if self.parity else present, train)
    mlp = MLP(self.hidden, self.norm, self.dropout, self.activation, self.dtype)
    fused = mlp(fused, train=train).astype(jnp.float32)
    if self.parity:
      return fused
    # An example without elements gets zeros, without the biases of the MLP.
    some = jnp.stack(list(present.values())).any(axis=0)
    return jnp.where(some[:, None], fused, 0)

  def _fuse(
    self, vectors: Mapping[str, Array], present: Mapping[str, Array] | None, train: bool
  ) -> Float[Array, "b f"]:
    widths = dict.fromkeys(self.modalities, self.features)
    if self.kind in ("attention", "concat"):
      one = {
        "attention": channels.ChannelAttention,
        "concat": channels.ChannelConcat,
      }[self.kind]
      fusion = one(widths, self.projection_dim, self.parity, self.dtype, name="fusion")
      return fusion(vectors, present)
    transformer = None
    if self.kind == "deepset_transformer":
      transformer = deepset.PostNormTransformer(
        self.heads,
        self.layers,
        self.ffn,
        self.transformer_dropout,
        self.dtype,
        name="transformer",
      )
    core = deepset.Deepset(
      pool=self.pool,
      apply_attention=self.apply_attention,
      attention_dim=self.attention_dim,
      modality_normalize=self.modality_normalize,
      norm_factor=self.norm_factor,
      transformer=transformer,
      parity=self.parity,
      dtype=self.dtype,
      name="deepset",
    )
    fusion = channels.ChannelDeepset(
      widths, core, self.auto_mapping, self.dtype, name="fusion"
    )
    return fusion(vectors, present, train=train)

  def _check_complete(self, modalities: Mapping[str, Ragged]) -> None:
    """Checks that every modality can have a vector in each example."""
    for name in sorted(self.modalities):
      if name not in modalities:
        raise ConfigError(
          f"torchmultimodal: modality {name!r} is absent; with parity all modalities"
          " are needed"
        )
      part = modalities[name]
      if part.num_slots < part.num_examples:
        raise ConfigError(
          f"torchmultimodal: modality {name!r} has {part.num_slots} slots for"
          f" {part.num_examples} examples; with parity each example needs one element"
        )
