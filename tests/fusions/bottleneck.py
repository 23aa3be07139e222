"""Attention bottlenecks by a loop over examples."""

import numpy as np

from deepsets_jax import fusion
from tests.fusions.transformer import dense, gelu, norm
from tests.sets import FEATURES, NAMES

LAYERS = 2  # The second one sees what the first has made of the shared tokens.


def block(project, update, x):
  """A transformer block on the rows of one example and modality."""
  normed = norm(project["LayerNorm_0"], x)
  heads = project["DenseGeneral_0"]
  q, k, v = np.einsum("nd,dchk->chnk", normed, heads["kernel"])
  q, k, v = (x + b[:, None] for x, b in zip((q, k, v), heads["bias"], strict=True))
  logits = np.einsum("hqk,hmk->hqm", q, k) / np.sqrt(q.shape[-1])
  shares = np.exp(logits - logits.max(-1, keepdims=True))
  seen = np.einsum("hqm,hmk->qhk", shares / shares.sum(-1, keepdims=True), v)
  x = x + dense(update["Dense_0"], seen.reshape(len(x), -1))
  feed = update["FeedForward_0"]
  hidden = gelu(dense(feed["Dense_0"], norm(update["LayerNorm_0"], x)))
  return x + dense(feed["Dense_1"], hidden)


def bottleneck_loop(params, sets, layers=LAYERS, pool=None):
  """Of one example: class token and elements by modality, and the shared tokens."""
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


FUSIONS = {
  "bottleneck": (
    fusion.BottleneckFusion(
      NAMES, FEATURES, layers=LAYERS, bottlenecks=2, heads=3, hidden=5
    ),
    bottleneck_loop,
  )
}
