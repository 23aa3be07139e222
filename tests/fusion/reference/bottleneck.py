"""Attention bottlenecks by a loop over examples."""

import numpy as np

from deepsets_jax import fusion
from tests.fusion.reference.transformer import dense, gelu, norm
from tests.sets import FEATURES, NAMES

LAYERS = 2  # The second one sees what the first has made of the shared tokens.


def attend(project, x):
  """The weights of each head `[h, n, n]` and the values `[h, n, k]`."""
  normed = norm(project["LayerNorm_0"], x)
  heads = project["DenseGeneral_0"]
  q, k, v = np.einsum("nd,dchk->chnk", normed, heads["kernel"])
  q, k, v = (x + b[:, None] for x, b in zip((q, k, v), heads["bias"], strict=True))
  logits = np.einsum("hqk,hmk->hqm", q, k) / np.sqrt(q.shape[-1])
  shares = np.exp(logits - logits.max(-1, keepdims=True))
  return shares / shares.sum(-1, keepdims=True), v


def block(project, update, x):
  """A transformer block on the rows of one example and modality."""
  seen = np.einsum("hqm,hmk->qhk", *attend(project, x))
  x = x + dense(update["Dense_0"], seen.reshape(len(x), -1))
  feed = update["FeedForward_0"]
  hidden = gelu(dense(feed["Dense_0"], norm(update["LayerNorm_0"], x)))
  return x + dense(feed["Dense_1"], hidden)


def bottleneck_loop(params, sets, layers=LAYERS, pool=None):
  """The fused vector of one example."""
  own = {
    name: np.concatenate([params[f"class_{name}"], values]) if pool is None else values
    for name, values in sets.items()
    if len(values)
  }
  if not own:
    return np.zeros(FEATURES)
  shared = params["bottlenecks"]
  for index in range(layers):
    layer, copies = params[f"layer_{index}"], []
    for name, rows in own.items():
      rows = np.concatenate([rows, shared])
      rows = block(layer[f"project_{name}"], layer[f"update_{name}"], rows)
      own[name] = rows[: -len(shared)]
      copies.append(rows[-len(shared) :])
    shared = np.mean(copies, axis=0)
  read = [norm(params["norm"], rows) for rows in own.values()]
  read = [x[0] if pool is None else getattr(x, pool)(axis=0) for x in read]
  return np.mean(read, axis=0)


def bottleneck_attention(params, sets, layers=LAYERS, pool=None):
  """The weights of one example's elements, from all read vectors equally.

  `flows[name]` is the share of each element of the example in each row.
  """
  sizes = {name: len(values) for name, values in sets.items() if len(values)}
  if not sizes:
    return {name: np.zeros(0) for name in sets}
  total, begin, own, flows = sum(sizes.values()), 0, {}, {}
  for name, size in sizes.items():
    own[name], flows[name] = sets[name], np.eye(total)[begin : begin + size]
    begin += size
    if pool is None:
      own[name] = np.concatenate([params[f"class_{name}"], own[name]])
      flows[name] = np.concatenate([np.zeros((1, total)), flows[name]])
  shared = params["bottlenecks"]
  of_shared = np.zeros((len(shared), total))
  for index in range(layers):
    layer, copies, of_copies = params[f"layer_{index}"], [], []
    for name, rows in own.items():
      rows, flow = (
        np.concatenate(pair) for pair in ((rows, shared), (flows[name], of_shared))
      )
      project = layer[f"project_{name}"]
      flow = (flow + attend(project, rows)[0].mean(axis=0) @ flow) / 2
      rows = block(project, layer[f"update_{name}"], rows)
      own[name], flows[name] = rows[: -len(shared)], flow[: -len(shared)]
      copies.append(rows[-len(shared) :])
      of_copies.append(flow[-len(shared) :])
    shared, of_shared = np.mean(copies, axis=0), np.mean(of_copies, axis=0)
  read = [flow[0] if pool is None else flow.mean(axis=0) for flow in flows.values()]
  shares = np.sum(read, axis=0) / np.sum(read)
  parts = np.split(shares, np.cumsum(list(sizes.values()))[:-1])
  parts = dict(zip(sizes, parts, strict=True))
  return {name: parts.get(name, np.zeros(0)) for name in sets}


ATTENTION = {"bottleneck": bottleneck_attention}
FUSIONS = {
  "bottleneck": (
    fusion.BottleneckFusion(
      NAMES, FEATURES, layers=LAYERS, bottlenecks=2, heads=3, hidden=5
    ),
    bottleneck_loop,
  )
}
