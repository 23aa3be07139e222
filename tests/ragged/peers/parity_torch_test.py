"""Values and gradients beside torch's: torchmultimodal, and PyTorch Geometric.

Torch is no dependency, so that most of the time these are skipped. `.[parity]` brings
torch and PyTorch Geometric. torchmultimodal (facebookresearch/multimodal) pins old
versions of others, so it is brought without them:

  pip install --no-deps torchmultimodal-nightly && pip install iopath
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax import encoders
from deepsets_jax.encoders.channels import (
  ChannelAttention,
  ChannelConcat,
  ChannelDeepset,
)
from deepsets_jax.encoders.deepset import Deepset, Pooling, PostNormTransformer
from deepsets_jax.fusion import TorchMultimodalFusion
from deepsets_jax.ragged import Ragged, pooling
from tests.ragged.peers.torchmultimodal_cases_test import Linear, Mean
from tests.sets import pack

torch = pytest.importorskip("torch", reason="torch is not installed: .[parity]")

CHANNELS = ("c", "a", "b")
EQUAL = dict.fromkeys(CHANNELS, 8)
UNEQUAL = {"c": 5, "a": 8, "b": 6}
POOLS = {
  "sum": torch.sum,
  "mean": torch.mean,
  "median": torch.median,
  "max": torch.max,
  "min": torch.min,
}


@pytest.fixture
def original():
  """The modules of torchmultimodal."""
  found = {}
  for name in (
    "fusions.deepset_fusion",
    "fusions.attention_fusion",
    "fusions.concat_fusion",
    "encoders.mil_encoder",
    "encoders.embedding_encoder",
    "encoders.weighted_embedding_encoder",
  ):
    path = f"torchmultimodal.modules.{name}"
    reason = "torchmultimodal is not installed"
    found |= vars(pytest.importorskip(path, reason=reason))
  return found


def weight(parameter):
  return parameter.detach().numpy()


def gradient(parameter):
  return parameter.grad.numpy()


def linear(layer, of):
  return {"kernel": of(layer.weight).T, "bias": of(layer.bias)}


def layer_norm(layer, of):
  return {"scale": of(layer.weight), "bias": of(layer.bias)}


def transformer(encoder, of):
  """The parameters of a `torch.nn.TransformerEncoder` as ours."""
  params = {"norm": layer_norm(encoder.norm, of)}
  for index, layer in enumerate(encoder.layers):
    attention, name = layer.self_attn, f"layer_{index}"
    d, heads = attention.embed_dim, attention.num_heads
    kernels = of(attention.in_proj_weight).reshape(3, heads, d // heads, d)
    biases = of(attention.in_proj_bias).reshape(3, heads, d // heads)
    for part, kernel, bias in zip(
      ("query", "key", "value"), kernels, biases, strict=True
    ):
      kernel = kernel.transpose(2, 0, 1)
      params[f"{name}_attention_{part}"] = {"kernel": kernel, "bias": bias}
    out = linear(attention.out_proj, of)
    out["kernel"] = out["kernel"].reshape(heads, d // heads, d)
    params[f"{name}_attention_out"] = out
    params[f"{name}_attention_norm"] = layer_norm(layer.norm1, of)
    params[f"{name}_hidden"] = linear(layer.linear1, of)
    params[f"{name}_out"] = linear(layer.linear2, of)
    params[f"{name}_out_norm"] = layer_norm(layer.norm2, of)
  return params


def projections(modules, of):
  return {
    f"projection_{name}": linear(module, of)
    for name, module in modules.items()
    if isinstance(module, torch.nn.Linear)
  }


def deepset(module, of):
  """The parameters of a deepset fusion as those of our `Deepset`."""
  params = {}
  if module.apply_attention:
    params["attention"] = {
      "hidden": linear(module.attention[0], of),
      "score": linear(module.attention[2], of),
    }
  if isinstance(module.pooling_function, torch.nn.Module):
    params["transformer"] = transformer(module.pooling_function, of)
  return params


def channel_deepset(module, of):
  return {"deepset": deepset(module, of), **projections(module.projections, of)}


def inputs_of(widths, b=4, seed=0):
  rng = np.random.default_rng(seed)
  return {k: rng.normal(size=(b, c)).astype(np.float32) for k, c in widths.items()}


def compare(theirs, ours, carry, inputs):
  """That values, and gradients by inputs and parameters, are the same.

  Args:
    theirs: A module of torch.
    ours: Of (params, inputs).
    carry: The parameters of `theirs` as ours, of (module, weight or gradient).
    inputs: An array or a dictionary of them, of floats or (no gradient) of integers.
  """
  theirs.eval()
  tensors = jax.tree.map(torch.tensor, inputs)
  for tensor in jax.tree.leaves(tensors):
    tensor.requires_grad_(tensor.is_floating_point())
  want = theirs(tensors)
  cotangent = np.random.default_rng(1).normal(size=want.shape).astype(np.float32)
  (want * torch.tensor(cotangent)).sum().backward()
  params = jax.tree.map(jnp.asarray, carry(theirs, weight))
  got, back = jax.vjp(ours, params, jax.tree.map(jnp.asarray, inputs))
  by_params, by_inputs = back(jnp.asarray(cotangent))
  np.testing.assert_allclose(got, want.detach().numpy(), 1e-5, 1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 2e-5),
    jax.device_get(by_params),
    carry(theirs, gradient),
  )
  for got, tensor in zip(
    jax.tree.leaves(by_inputs), jax.tree.leaves(tensors), strict=True
  ):
    if tensor.is_floating_point():
      np.testing.assert_allclose(got, tensor.grad.numpy(), 1e-4, 2e-5)


def applied(module, **settings):
  return lambda params, x: module.apply({"params": params}, x, **settings)


class TestTorchMultimodal:
  @pytest.mark.parametrize(
    ("pool", "widths", "settings"),
    [
      ("sum", EQUAL, {}),
      ("mean", EQUAL, dict(norm_factor=1.0)),
      ("median", EQUAL, dict(modality_normalize=True)),
      ("max", UNEQUAL, dict(auto_mapping=True)),
      ("min", UNEQUAL, dict(auto_mapping=True, apply_attention=True)),
      ("median", EQUAL, dict(apply_attention=True)),
      (
        "mean",
        EQUAL,
        dict(
          apply_attention=True,
          modality_normalize=True,
          attention_dim=3,
          norm_factor=3.0,
        ),
      ),
    ],
  )
  def test_deepset(self, original, pool, widths, settings):
    torch.manual_seed(0)
    renamed = {
      "use_auto_mapping" if k == "auto_mapping" else k: v for k, v in settings.items()
    }
    theirs = original["DeepsetFusionModule"](
      widths, torch.nn.Identity(), POOLS[pool], **renamed
    )
    mapping = settings.pop("auto_mapping", False)
    ours = ChannelDeepset(widths, Deepset(pool, parity=True, **settings), mapping)
    compare(theirs, applied(ours, train=False), channel_deepset, inputs_of(widths))

  def test_deepset_with_a_transformer(self, original):
    torch.manual_seed(0)
    theirs = original["deepset_transformer"](
      UNEQUAL | {"a": 7, "c": 6},
      torch.nn.Identity(),
      apply_attention=True,
      modality_normalize=True,
      use_auto_mapping=True,
      num_transformer_att_heads=2,
      num_transformer_layers=2,
    )
    core = Deepset(
      apply_attention=True,
      modality_normalize=True,
      transformer=PostNormTransformer(2, 2),
      parity=True,
    )
    widths = UNEQUAL | {"a": 7, "c": 6}
    ours = ChannelDeepset(widths, core, auto_mapping=True)
    compare(theirs, applied(ours, train=False), channel_deepset, inputs_of(widths))

  def test_the_fusion_of_flat_arrays(self, original):
    torch.manual_seed(0)
    theirs = original["deepset_transformer"](
      EQUAL,
      torch.nn.Sequential(torch.nn.Linear(8, 5), torch.nn.ReLU()),
      use_auto_mapping=True,
      num_transformer_att_heads=2,
    )
    module = TorchMultimodalFusion(
      CHANNELS,
      8,
      kind="deepset_transformer",
      auto_mapping=True,
      heads=2,
      hidden=(5,),
      parity=True,
    )

    def ours(params, x):
      b = len(x["a"])
      flat = {k: Ragged(v, jnp.arange(b + 1, dtype=jnp.int32)) for k, v in x.items()}
      return module.apply({"params": params}, flat, train=False)

    def carry(theirs, of):
      return {
        "fusion": projections(theirs.projections, of),
        "MLP_0": {"Dense_0": linear(theirs.mlp[0], of)},
        **deepset(theirs, of),
      }

    compare(theirs, ours, carry, inputs_of(EQUAL))

  @pytest.mark.parametrize("projection_dim", [None, 4])
  def test_attention(self, original, projection_dim):
    torch.manual_seed(0)
    theirs = original["AttentionFusionModule"](UNEQUAL, projection_dim)
    ours = ChannelAttention(UNEQUAL, projection_dim, parity=True)

    def carry(theirs, of):
      named = projections(theirs.encoding_projection, of)
      return {"attention": linear(theirs.attention[0], of), **named}

    compare(theirs, applied(ours), carry, inputs_of(UNEQUAL))

  def test_concat(self, original):
    torch.manual_seed(0)
    width = sum(UNEQUAL.values())
    theirs = original["ConcatFusionModule"](torch.nn.Linear(width, 4))
    ours = ChannelConcat(UNEQUAL, 4, parity=True)
    compare(
      theirs,
      applied(ours),
      lambda theirs, of: {"projection": linear(theirs.projection, of)},
      inputs_of(UNEQUAL),
    )

  @pytest.mark.parametrize("mapping", [True, False])
  def test_mil_of_runs(self, original, mapping):
    torch.manual_seed(0)
    theirs = original["MILEncoder"](
      [10] * 5,
      torch.nn.Linear(10, 8),
      8,
      torch.nn.Sequential(torch.nn.Linear(8, 5), torch.nn.ReLU()),
      torch.median,
      apply_attention=True,
      modality_normalize=True,
      use_auto_mapping=mapping,
    )
    core = Deepset("median", True, modality_normalize=True, parity=True)
    ours = encoders.MILEncoder(
      Linear(8), 8, core, encoders.MLP((5,)), [10] * 5, mapping
    )

    def carry(theirs, of):
      params = {
        "encoder": {"Dense_0": linear(theirs.shared_encoder, of)},
        "deepset": deepset(theirs.deepset_fusion, of),
        "mlp": {"Dense_0": linear(theirs.deepset_fusion.mlp[0], of)},
      }
      named = projections(theirs.deepset_fusion.projections, of)
      return params | ({"fusion": named} if named else {})

    x = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    compare(theirs, applied(ours, train=False), carry, x)

  def test_mil_of_bags_of_vectors_with_a_transformer(self, original):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(8, 2, batch_first=True)
    theirs = original["MILEncoder"](
      [2, 1],
      MeanOfAxisOne(),
      8,
      torch.nn.Identity(),
      torch.nn.TransformerEncoder(
        layer, num_layers=1, norm=torch.nn.LayerNorm(8), enable_nested_tensor=False
      ),
    )
    core = Deepset(transformer=PostNormTransformer(2), parity=True)
    ours = encoders.MILEncoder(Mean(), 8, core, partition_sizes=[2, 1])
    x = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    compare(
      theirs,
      applied(ours, train=False),
      lambda theirs, of: {"deepset": deepset(theirs.deepset_fusion, of)},
      x,
    )

  @pytest.mark.parametrize("pool", ["sum", "mean", "max"])
  @pytest.mark.parametrize("pooling_dim", [1, 2])
  def test_embedding(self, original, pool, pooling_dim):
    torch.manual_seed(0)
    theirs = original["EmbeddingEncoder"](
      torch.nn.Embedding(7, 4), pool, pooling_dim, use_hash=True
    )
    ours = encoders.EmbeddingEncoder(7, 4, pool, pooling_dim, use_hash=True)
    ids = np.array([[100, 3, 5], [8, 17, 1], [0, 14, 9]], np.int32)
    compare(theirs, applied(ours, train=False), embedding, ids)

  @pytest.mark.parametrize("pool", ["sum", "mean", "max", "median"])
  def test_weighted_embedding(self, original, pool):
    torch.manual_seed(0)
    theirs = original["WeightedEmbeddingEncoder"](
      torch.nn.Embedding(5, 4), functools.partial(_call, POOLS[pool])
    )
    ours = encoders.WeightedEmbeddingEncoder(5, 4, pool)
    weights = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    compare(theirs, applied(ours, train=False), embedding, weights)


def embedding(theirs, of):
  return {"embedding": {"embedding": of(theirs.embedding.weight)}}


def _call(pool, x, dim):
  return pool(x, dim=dim)


class MeanOfAxisOne(torch.nn.Module):
  def forward(self, x):
    return x.mean(1)


SIZES = (4, 0, 1, 5, 0, 2)


def groups(ties):
  rng = np.random.default_rng(0)
  lists = [rng.normal(size=(n, 3)) for n in SIZES]
  if ties:
    # Not 0: torch's scatter starts there, and gives the start a share of the gradient.
    lists = [np.round(x) + 0.5 for x in lists]
  return [x.astype(np.float32) for x in lists]


def against_index(theirs, ours, ties):
  """Pairs of values and of gradients, by aggregation over an index and over slots."""
  lists = groups(ties)
  x = torch.tensor(np.concatenate(lists), requires_grad=True)
  index = torch.tensor(np.repeat(np.arange(len(SIZES)), SIZES))
  want = theirs(x, index)
  cotangent = np.random.default_rng(1).normal(size=want.shape).astype(np.float32)
  (want * torch.tensor(cotangent)).sum().backward()
  elements = pack(lists, 15)
  got, back = jax.vjp(lambda v: ours(elements.replace(values=v)), elements.values)
  (by_values,) = back(jnp.asarray(cotangent))
  np.testing.assert_array_equal(by_values[sum(SIZES) :], 0)
  return (got, want.detach().numpy()), (by_values[: sum(SIZES)], x.grad.numpy())


@pytest.fixture
def aggr():
  reason = "PyTorch Geometric is not installed: .[parity]"
  return pytest.importorskip("torch_geometric.nn.aggr", reason=reason)


class TestPyTorchGeometric:
  """Empty groups are zeros in both, and equal extremes share their gradient."""

  @pytest.mark.parametrize("ties", [True, False])
  @pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "var", "std"])
  def test_pools(self, aggr, name, ties):
    aggregation = getattr(aggr, f"{name.title()}Aggregation")()
    values, gradients = against_index(
      lambda x, index: aggregation(x, index, dim_size=len(SIZES)),
      functools.partial(pooling.pool, name),
      ties,
    )
    np.testing.assert_allclose(*values, 1e-5, 1e-6)
    np.testing.assert_allclose(*gradients, 1e-4, 1e-5)

  @pytest.mark.parametrize("ties", [True, False])
  def test_median(self, aggr, ties):
    aggregation = aggr.MedianAggregation()
    values, gradients = against_index(
      lambda x, index: aggregation(x, index, dim_size=len(SIZES)),
      functools.partial(Pooling("median").apply, {}),
      ties,
    )
    np.testing.assert_array_equal(*values)
    if ties:
      # One of equal values has the whole gradient there, and here each its share.
      ends = np.cumsum(SIZES)[:-1]
      gradients = [[part.sum(0) for part in np.split(g, ends)] for g in gradients]
    np.testing.assert_allclose(*gradients, 1e-5, 1e-6)

  @pytest.mark.parametrize("ties", [True, False])
  def test_softmax_of_the_values(self, aggr, ties):
    aggregation = aggr.SoftmaxAggregation()
    values, gradients = against_index(
      lambda x, index: aggregation(x, index, dim_size=len(SIZES)),
      lambda elements: pooling.pool("softmax", elements, scores=elements.values),
      ties,
    )
    np.testing.assert_allclose(*values, 1e-5, 1e-6)
    np.testing.assert_allclose(*gradients, 1e-4, 1e-5)

  def test_softmax_of_a_gate(self, aggr):
    torch.manual_seed(0)
    gate = torch.nn.Linear(3, 1)
    aggregation = aggr.AttentionalAggregation(gate)
    kernel = jnp.asarray(weight(gate.weight)[0])
    bias = float(weight(gate.bias)[0])

    def ours(elements):
      scores = elements.values @ kernel + bias
      return pooling.pool("softmax", elements, scores=scores)

    values, gradients = against_index(
      lambda x, index: aggregation(x, index, dim_size=len(SIZES)), ours, ties=False
    )
    np.testing.assert_allclose(*values, 1e-5, 1e-6)
    np.testing.assert_allclose(*gradients, 1e-4, 1e-5)


@pytest.mark.parametrize("ties", [True, False])
def test_logsumexp(ties):
  def theirs(x, index):
    rows = [x[index == row] for row in range(len(SIZES))]
    none = torch.zeros(x.shape[1])
    return torch.stack([torch.logsumexp(r, 0) if len(r) else none for r in rows])

  ours = functools.partial(pooling.pool, "logsumexp")
  values, gradients = against_index(theirs, ours, ties)
  np.testing.assert_allclose(*values, 1e-5, 1e-6)
  np.testing.assert_allclose(*gradients, 1e-4, 1e-5)
