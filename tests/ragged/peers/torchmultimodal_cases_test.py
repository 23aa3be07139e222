"""The settings of torchmultimodal's fusion tests, by loops; see README.md.

Its tests of the deepset fusion, the attention fusion and the MIL encoder assert shapes.
Here the same calls are held against their definitions, one example at a time in
float64, with `parity`, which asks for the original's order of steps. The numbers that
its other tests assert are in torchmultimodal_test.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax import encoders
from deepsets_jax.encoders.channels import ChannelAttention, ChannelDeepset
from deepsets_jax.encoders.deepset import Deepset, Pooling, PostNormTransformer
from deepsets_jax.ragged import Ragged

EQUAL = dict.fromkeys(("channel_1", "channel_2", "channel_3"), 3)
UNEQUAL = EQUAL | {"channel_3": 4}
TOLERANCES = (1e-4, 1e-5)


def uniform(*shape, seed=0):
  return np.random.default_rng(seed).random(shape).astype(np.float32)


def channels(widths, batch_size):
  return {
    name: uniform(batch_size, width, seed=seed)
    for seed, (name, width) in enumerate(widths.items())
  }


def run(module, x, **settings):
  """The module's result with parameters from a normal distribution, and these."""
  x = jax.tree.map(jnp.asarray, x)
  shapes = jax.eval_shape(
    functools.partial(module.init, **settings), jax.random.key(0), x
  )
  rng = np.random.default_rng(7)
  params = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
    shapes.get("params", {}),
  )
  got = jax.jit(functools.partial(module.apply, **settings))({"params": params}, x)
  return got, jax.tree.map(np.float64, params)


def affine(params, x):
  return x @ params["kernel"] + params["bias"]


def softmax(x):
  return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def layer_norm(params, x):
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
  return x * params["scale"] + params["bias"]


def transformer(params, x, heads):
  """One layer, its norms after the residuals, and a last norm; the first row."""
  mixed = np.zeros_like(x)
  parts = {p: params[f"layer_0_attention_{p}"] for p in ("query", "key", "value")}
  out = params["layer_0_attention_out"]
  for head in range(heads):
    query, key, value = (
      x @ part["kernel"][:, head] + part["bias"][head] for part in parts.values()
    )
    for row, scores in enumerate(query @ key.T / np.sqrt(query.shape[1])):
      mixed[row] += softmax(scores) @ value @ out["kernel"][head]
  x = layer_norm(params["layer_0_attention_norm"], x + mixed + out["bias"])
  hidden = np.maximum(affine(params["layer_0_hidden"], x), 0)
  x = layer_norm(params["layer_0_out_norm"], x + affine(params["layer_0_out"], hidden))
  return layer_norm(params["norm"], x)[0]


POOLS = {
  "sum": lambda x: x.sum(0),
  "mean": lambda x: x.sum(0) / len(x),
  "median": lambda x: np.sort(x, axis=0)[(len(x) - 1) // 2],
  "min": lambda x: x.min(0),
  "max": lambda x: x.max(0),
}


def deepset(params, rows, pool, *, attention=False, along_channels=False):
  """The vectors of one example, in sorted order of channels, fused."""
  x = np.stack(rows)
  if attention:
    hidden = np.tanh(affine(params["attention"]["hidden"], x))
    x = x * softmax(affine(params["attention"]["score"], hidden)[:, 0])[:, None]
  axis = 0 if along_channels else 1
  x = x / np.sqrt((x**2).sum(axis, keepdims=True))
  return pool(x)


@pytest.mark.parametrize("batch_size", [2, 1])
@pytest.mark.parametrize(
  ("pool", "auto_mapping", "along_channels", "attention"),
  [
    ("sum", False, False, False),
    ("mean", False, False, False),
    ("median", False, False, False),
    ("min", False, False, False),
    ("max", False, False, False),
    ("sum", True, True, False),
    ("sum", False, True, False),
    ("sum", False, True, True),
  ],
)
def test_deepset(pool, auto_mapping, along_channels, attention, batch_size):
  core = Deepset(pool, attention, modality_normalize=along_channels, parity=True)
  inputs = channels(EQUAL, batch_size)
  module = ChannelDeepset(EQUAL, core, auto_mapping)
  got, params = run(module, inputs, train=False)
  for row in range(batch_size):
    rows = [np.float64(x[row]) for x in inputs.values()]
    if auto_mapping:
      rows = [
        affine(params[f"projection_{name}"], x)
        for name, x in zip(inputs, rows, strict=True)
      ]
    want = deepset(
      params.get("deepset"),
      rows,
      POOLS[pool],
      attention=attention,
      along_channels=along_channels,
    )
    np.testing.assert_allclose(got[row], want, *TOLERANCES)


@pytest.mark.parametrize("batch_size", [2, 1])
def test_deepset_with_a_transformer_of_three_heads(batch_size):
  core = Deepset(transformer=PostNormTransformer(3), parity=True)
  inputs = channels(EQUAL, batch_size)
  got, params = run(ChannelDeepset(EQUAL, core), inputs, train=False)
  mix = functools.partial(transformer, params["deepset"]["transformer"], heads=3)
  for row in range(batch_size):
    rows = [np.float64(x[row]) for x in inputs.values()]
    want = deepset(None, rows, mix)
    np.testing.assert_allclose(got[row], want, 1e-3, 1e-4)


def test_an_unknown_pool_is_refused():
  with pytest.raises(ValueError, match="'random'"):
    run(
      ChannelDeepset(EQUAL, Deepset("random", parity=True)),
      channels(EQUAL, 2),
      train=False,
    )


@pytest.mark.parametrize(("projection_dim", "width"), [(None, 3), (2, 2)])
def test_attention(projection_dim, width):
  inputs = channels(UNEQUAL, 2)
  got, params = run(ChannelAttention(UNEQUAL, projection_dim, parity=True), inputs)
  assert got.shape == (2, width)
  for row in range(2):
    rows = {name: np.float64(x[row]) for name, x in inputs.items()}
    weights = softmax(affine(params["attention"], np.concatenate([*rows.values()])))
    projected = [affine(params[f"projection_{name}"], x) for name, x in rows.items()]
    np.testing.assert_allclose(got[row], weights @ np.stack(projected), *TOLERANCES)


class Linear(nn.Module):
  features: int

  @nn.compact
  def __call__(self, elements, *, train):
    return elements.replace(values=nn.Dense(self.features)(elements.values))


class Mean(nn.Module):
  @nn.compact
  def __call__(self, elements, *, train):
    pooled = Pooling("mean")(elements)
    return Ragged(pooled, jnp.arange(len(pooled) + 1))


def mil(encoder, core, sizes):
  return encoders.MILEncoder(encoder, 8, core, encoders.MLP((5,)), sizes)


@pytest.mark.parametrize("batch_size", [2, 1])
def test_mil_of_five_runs_of_ten(batch_size):
  x = uniform(batch_size, 50)
  module = mil(Linear(8), Deepset("sum", parity=True), [10] * 5)
  got, params = run(module, x, train=False)
  for row in range(batch_size):
    runs = np.float64(x[row]).reshape(5, 10)
    fused = deepset(None, affine(params["encoder"]["Dense_0"], runs), POOLS["sum"])
    want = np.maximum(affine(params["mlp"]["Dense_0"], fused), 0)
    np.testing.assert_allclose(got[row], want, *TOLERANCES)


def test_mil_of_two_bags_of_vectors_with_a_transformer():
  x = uniform(2, 3, 8)
  core = Deepset(transformer=PostNormTransformer(2), parity=True)
  got, params = run(mil(Mean(), core, [2, 1]), x, train=False)
  mix = functools.partial(transformer, params["deepset"]["transformer"], heads=2)
  for row, bag in enumerate(np.float64(x)):
    fused = deepset(None, [bag[:2].mean(0), bag[2]], mix)
    want = np.maximum(affine(params["mlp"]["Dense_0"], fused), 0)
    np.testing.assert_allclose(got[row], want, 1e-3, 1e-4)


def test_mil_of_sixty_entries_where_there_are_fifty_is_refused():
  module = mil(Linear(8), Deepset("sum", parity=True), [12] * 5)
  with pytest.raises(ValueError, match="axis 1 of the input, 50"):
    run(module, uniform(2, 50), train=False)
