"""The multi-modal transformer of text-video retrieval.

Gabeur, Sun, Alahari and Schmid, "Multi-modal Transformer for Video Retrieval" (2020),
computed as the public model computes it, on ragged frames: with the weights that
`weights.from_torch_state` converts it gives the same similarities. It has two towers
instead of one vector per example, so it is not one of `FUSIONS`. Axes besides the
usual: `q` texts, `e` experts, `c` features of an expert's frame, `t` of a text.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from deepsets_jax import ragged
from deepsets_jax.encoders.layers import l2_normalize
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion.base import check_present
from deepsets_jax.models.mmt import frames, objective
from deepsets_jax.ragged import Ragged, attention, pooling

_NORMAL = nn.initializers.normal(0.02, jnp.float32)


class VideoTower(nn.Module):
  """The tower of videos: frames of experts to one vector per expert.

  A transformer over a [CLS] token and, for each expert, an aggregated token (the
  maximum over all its frames) and a token per frame. A token is a projection of length
  1, plus a code of the expert, plus a code of the time. The outputs of the aggregated
  tokens represent the video. Nothing attends to a token of an expert without frames.

  The public code also applies dropout to attention weights in training; attention
  weights are never materialised here, so this is left out.

  Attributes:
    experts: The width `c` of a frame of each expert.
    features: Width `d` of a token.
    num_layers: Number of layers of the transformer. Each has attention and a hidden
      layer, with the norm after the sum.
    num_heads: Number of attention heads; must divide `features`.
    hidden: Width of the hidden layers.
    max_frames: Largest number of frames of an expert that become tokens.
    num_times: Number of time codes; the last one is also for all later times.
    window: Duration of a time code, in the unit of the elements' times.
    dropout: Dropout rate on tokens and residual branches, from 0 to below 1.
    keep_missing_modalities: Whether the aggregated token of an expert without frames,
      made from a zero vector, counts as one of the video's, as in the public models. It
      attends to the other tokens, and no token attends to it. If False, such an expert
      has weight 0.
    dtype: Type of the computation; parameters, norms and results are float32.
  """

  experts: Mapping[str, int]
  features: int = 512
  num_layers: int = 4
  num_heads: int = 4
  hidden: int = 3072
  max_frames: int = 30
  num_times: int = 32
  window: float = 1.0
  dropout: float = 0.1
  keep_missing_modalities: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    experts: Mapping[str, Ragged],
    *,
    keep: Mapping[str, Bool[Array, "n"]] | None = None,
    train: bool,
  ) -> objective.Embedded:
    """Returns vectors `[b, e, d]`, and weights `[b, e]` equal for all that count.

    Args:
      experts: Frames `[n, c]` by expert, with or without times from the start of the
        video; a negative time is unknown.
      keep: A mask of the frames that become tokens, at most the first `max_frames` of
        them. By default random frames in training and evenly spread ones otherwise, see
        `frames`.
      train: Whether dropout is on, which needs a "dropout" key.

    Raises:
      ConfigError: No expert is given, one is not declared, or sizes do not fit.
    """
    self._check(experts)
    b = next(iter(experts.values())).num_examples
    times = self.param("time_codes", _NORMAL, (self.num_times, self.features))
    cls = self.param("code_cls", _NORMAL, (self.features,)) + times[0]
    parts = [Ragged(jnp.tile(cls, (b, 1)), jnp.arange(b + 1, dtype=jnp.int32))]
    missing = []
    for name, width in self.experts.items():
      none = Ragged(jnp.zeros((0, width), jnp.float32), jnp.zeros(b + 1, jnp.int32))
      elements = experts.get(name, none)
      code = self.param(f"code_{name}", _NORMAL, (self.features,))
      reduce = nn.Dense(self.features, dtype=self.dtype, name=f"reduce_{name}")
      project = functools.partial(_project, reduce)
      pooled = project(pooling.pool("max", elements)) + (code + times[0])[None]
      chosen = self._chosen(elements, (keep or {}).get(name), train)
      places = frames.time_places(chosen, self.window, self.num_times)
      values = project(chosen.values) + code[None] + jnp.take(times, places, axis=0)
      present = elements.lengths > 0
      parts.append(ragged.from_vectors(pooled, present))
      parts.append(Ragged(values, chosen.offsets))
      missing.append(ragged.from_vectors(pooled, ~present))
    outputs = self._transform(parts, missing, train)
    available = [part.lengths > 0 for part in parts[1::2]]
    weights = jnp.stack(available, axis=1).astype(jnp.float32)
    if self.keep_missing_modalities:
      weights = jnp.ones_like(weights)
    weights = weights / jnp.maximum(weights.sum(1, keepdims=True), 1)
    return objective.Embedded(l2_normalize(outputs), weights)

  def _check(self, experts: Mapping[str, Ragged]) -> None:
    check_present(experts)
    if self.features % self.num_heads:
      raise ConfigError(
        f"mmt: {self.num_heads} heads do not divide {self.features} features"
      )
    for name, elements in experts.items():
      if name not in self.experts:
        raise ConfigError(f"unknown expert {name!r}; one of {sorted(self.experts)}")
      width = elements.values.shape[-1]
      if width != self.experts[name]:
        raise ConfigError(f"{name}: {width} features, expected {self.experts[name]}")

  def _chosen(
    self, elements: Ragged, keep: Bool[Array, "n"] | None, train: bool
  ) -> Ragged:
    """The frames that become tokens."""
    limit = self.max_frames
    if keep is None and elements.num_slots <= limit:
      return elements
    if keep is None and train:
      keep = ragged.sample_mask(self.make_rng("dropout"), elements, limit)
    elif keep is None:
      keep = frames.keep_evenly(elements, limit)
    return frames.select(elements, keep, limit)

  def _transform(
    self, parts: Sequence[Ragged], missing: Sequence[Ragged], train: bool
  ) -> Float[Array, "b e d"]:
    """The outputs of the aggregated tokens; 0 for experts that do not count."""
    tokens, slots = ragged.concatenate(parts)
    n, x = tokens.num_slots, tokens.values
    longest = 1 + len(self.experts) * (1 + self.max_frames)
    bounds = min(n, longest), min(n, longest)
    inside = attention.plan(tokens.offsets, tokens.offsets, *bounds)
    if self.keep_missing_modalities:
      others, other_slots = ragged.concatenate(missing)
      x = jnp.concatenate([x, others.values])
      across = attention.plan(
        others.offsets, tokens.offsets, len(self.experts), bounds[1]
      )

    def attend(q, k, v):
      out = attention.attend(q[:n], k[:n], v[:n], inside)
      if not self.keep_missing_modalities:
        return out
      return jnp.concatenate([out, attention.attend(q[n:], k[:n], v[:n], across)])

    x = _norm("norm")(x)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    for index in range(self.num_layers):
      layer = _Layer(
        self.num_heads, self.hidden, self.dropout, self.dtype, name=f"layer_{index}"
      )
      x = layer(x, attend, train=train)
    outputs = [
      _read(x[:n], *pair) for pair in zip(parts[1::2], slots[1::2], strict=True)
    ]
    if self.keep_missing_modalities:
      pairs = zip(outputs, missing, other_slots, strict=True)
      outputs = [out + _read(x[n:], part, slot) for out, part, slot in pairs]
    return jnp.stack(outputs, axis=1)


def _project(dense: nn.Dense, x: Float[Array, "n c"]) -> Float[Array, "n d"]:
  return l2_normalize(dense(x).astype(jnp.float32))


def _read(
  values: Float[Array, "m d"], part: Ragged, slots: Int[Array, "n"]
) -> Float[Array, "b d"]:
  """The outputs of a part with at most one token per example; 0 without one."""
  rows = jnp.take(values, slots, axis=0, mode="fill", fill_value=0)
  return pooling.pool("sum", part.replace(values=rows))


class _Layer(nn.Module):
  """Attention and a hidden layer, each added, then normalised (Devlin et al., 2019)."""

  num_heads: int
  hidden: int
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(
    self, x: Float[Array, "n d"], attend: Callable[..., Array], *, train: bool
  ) -> Float[Array, "n d"]:
    d = x.shape[-1]
    dense = functools.partial(nn.Dense, dtype=self.dtype, kernel_init=_NORMAL)
    drop = nn.Dropout(self.dropout, deterministic=not train)
    heads = (len(x), self.num_heads, d // self.num_heads)
    q, k, v = (dense(d, name=n)(x).reshape(heads) for n in ("query", "key", "value"))
    y = dense(d, name="attention_output")(attend(q, k, v).reshape(x.shape))
    x = _norm("attention_norm")(x + drop(y).astype(jnp.float32))
    y = nn.gelu(dense(self.hidden, name="hidden")(x), approximate=False)
    y = dense(d, name="output")(y)
    return _norm("output_norm")(x + drop(y).astype(jnp.float32))


def _norm(name: str) -> nn.LayerNorm:
  return nn.LayerNorm(epsilon=1e-12, use_fast_variance=False, name=name)


class TextTower(nn.Module):
  """The tower of texts: a text embedding to one vector and one weight per expert.

  It has a gated embedding unit per expert (Miech et al., "Learning a Text-Video
  Embedding from Incomplete and Heterogeneous Data", 2018). In the public models its
  input is the output of BERT's [CLS] token, and BERT is trained with it.

  Attributes:
    experts: The experts of the video, in the same order.
    features: Width `d` of a vector.
    dropout: Dropout rate on the text from which the weights are computed, from 0 to
      below 1.
    dtype: Type of the computation; parameters, norms and results are float32.
  """

  experts: Sequence[str]
  features: int = 512
  dropout: float = 0.1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, text: Float[Array, "q t"], *, train: bool) -> objective.Embedded:
    """Returns vectors `[q, e, d]` and weights `[q, e]`.

    Training needs a "dropout" key, a mutable "batch_stats", and at least two texts.
    """
    dense = functools.partial(nn.Dense, dtype=self.dtype)
    dropped = nn.Dropout(self.dropout, deterministic=not train)(text)
    embeddings, scores = [], []
    for name in self.experts:
      x = dense(self.features, name=f"project_{name}")(text)
      gate = dense(self.features, name=f"gate_{name}")(x).astype(jnp.float32)
      gate = _BatchNorm(name=f"gate_norm_{name}")(gate, train=train)
      embeddings.append(l2_normalize(x.astype(jnp.float32) * nn.sigmoid(gate)))
      scores.append(dense(1, name=f"weight_{name}")(dropped).astype(jnp.float32))
    weights = nn.softmax(jnp.concatenate(scores, axis=-1))
    return objective.Embedded(jnp.stack(embeddings, axis=1), weights)


class _BatchNorm(nn.Module):
  """Batch normalisation as in PyTorch: the running variance is the unbiased one."""

  momentum: float = 0.1
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Float[Array, "q d"], *, train: bool) -> Float[Array, "q d"]:
    q, d = x.shape
    means = self.variable("batch_stats", "mean", jnp.zeros, (d,), jnp.float32)
    variances = self.variable("batch_stats", "var", jnp.ones, (d,), jnp.float32)
    scale = self.param("scale", nn.initializers.ones, (d,), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (d,), jnp.float32)
    mean, variance = means.value, variances.value
    if train and q < 2:
      raise ConfigError(
        "a single text has no variance; give at least two texts in training"
      )
    if train:
      mean, variance = x.mean(0), x.var(0)
    if train and not self.is_initializing():
      means.value += self.momentum * (mean - means.value)
      variances.value += self.momentum * (variance * (q / (q - 1)) - variances.value)
    scale = scale * jax.lax.rsqrt(variance + self.epsilon)
    return (x - mean[None]) * scale[None] + bias[None]


class MMT(nn.Module):
  """The similarities of texts and videos by two towers.

  Attributes:
    text: The tower of texts; its experts and features are those of `video`, in the same
      order.
    video: The tower of videos.
  """

  text: TextTower
  video: VideoTower

  def __call__(
    self,
    text: Float[Array, "q t"],
    experts: Mapping[str, Ragged],
    *,
    keep: Mapping[str, Bool[Array, "n"]] | None = None,
    train: bool,
  ) -> Float[Array, "q b"]:
    """Returns the similarities, see the towers and `objective.similarities`."""
    if list(self.text.experts) != list(self.video.experts):
      raise ConfigError(
        f"mmt: experts of the text {list(self.text.experts)}, of the video"
        f" {list(self.video.experts)}; give both towers the same, in the same order"
      )
    video = self.video(experts, keep=keep, train=train)
    return objective.similarities(self.text(text, train=train), video)
