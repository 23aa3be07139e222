"""torchmultimodal's fusions, of modalities that may be absent or repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deepsets_jax.encoders import channels, deepset
from deepsets_jax.encoders.importance import wants_importance
from deepsets_jax.encoders.layers import MLP
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion.base import Fusion, check_present, normalized, spread_evenly
from deepsets_jax.ragged import Ragged

_KINDS = ("attention", "concat", "deepset", "deepset_transformer")


class TorchMultimodalFusion(Fusion):
  """Each modality pooled to one vector, and the vectors fused.

  The deepset, attention and concat fusions of torchmultimodal
  (facebookresearch/multimodal), mended: the scaling of the vectors does not undo the
  attention, since it comes first; the transformer is read by a pool, so that no
  modality stands out; and absent modalities take no part.

  The attention that is sown, see `Fusion`, is a modality's weight in the kind
  "attention", or in a deepset with `apply_attention`, its elements' in equal parts.
  What a transformer after it does is left out. Other settings sow none.

  Attributes:
    kind: "deepset" scales, weighs and pools the vectors of modalities,
      "deepset_transformer" has a transformer between, "attention" adds up weighted
      projections of them, "concat" sets them side by side.
    element_pool: From a modality's elements to its vector, as `pool`.
    pool: From the modalities' vectors to one: a name in `pooling.POOLS` or "median".
    apply_attention, attention_dim, modality_normalize, norm_factor: Of both deepsets,
      as in `deepset.Deepset`.
    auto_mapping: Of both deepsets: a dense layer of each modality first.
    projection_dim: Of the attention, None for `features`; of the concatenation, None
      for no projection, where zeros are in the place of an absent modality.
    heads, layers, ffn, transformer_dropout: As in `deepset.PostNormTransformer`.
    hidden, norm, dropout, activation: Of an MLP after the fusion, as in `MLP`.
    parity: Gives torchmultimodal's numbers, wants every modality in the batch, and
      takes an example without elements for a vector of zeros.
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
      raise ConfigError(f"unknown kind {self.kind!r}; one of {list(_KINDS)}")
    if self.parity:
      self._check_complete(modalities)
    pool = deepset.Pooling(self.element_pool, self.dtype, name="element_pooling")
    vectors = {name: pool(modalities[name]) for name in sorted(modalities)}
    present = {name: ragged.lengths > 0 for name, ragged in modalities.items()}
    fused = self._fuse(vectors, None if self.parity else present, train)
    if wants_importance(self):
      self._sow_importance(modalities)
    mlp = MLP(self.hidden, self.norm, self.dropout, self.activation, self.dtype)
    fused = mlp(fused, train=train).astype(jnp.float32)
    if self.parity:
      return fused
    # Of nothing at all nothing is known: no bias either.
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

  def _sow_importance(self, modalities: Mapping[str, Ragged]) -> None:
    if self.kind == "attention":
      owner = "fusion"
    elif self.apply_attention and self.kind != "concat":
      owner = "deepset"
    else:
      return
    weights = self.variables["importance"][owner]["weights"]
    weights = weights.reshape(-1, len(self.modalities))
    spread = {
      name: spread_evenly(weights[:, index], modalities[name])
      for index, name in enumerate(sorted(self.modalities))
      if name in modalities
    }
    # With parity what is absent has a weight, too.
    self.sow_attention(normalized(spread, modalities))

  def _check_complete(self, modalities: Mapping[str, Ragged]) -> None:
    """Raises where a modality cannot have one vector for each example."""
    for name in sorted(self.modalities):
      if name not in modalities:
        raise ConfigError(f"modality {name!r} is absent: with parity all are needed")
      ragged = modalities[name]
      if ragged.num_slots < ragged.num_examples:
        raise ConfigError(
          f"modality {name!r} has {ragged.num_slots} slots for"
          f" {ragged.num_examples} examples: with parity each needs one element"
        )
