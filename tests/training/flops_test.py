import jax
import jax.numpy as jnp
import pytest

from deepsets_jax.training import flops

X, W = (
  jax.ShapeDtypeStruct((6, 5), jnp.float32),
  jax.ShapeDtypeStruct((5, 4), "float32"),
)
IDS = jax.ShapeDtypeStruct((6,), jnp.int32)


def layer(w, x):
  return jnp.tanh(x @ w)


@pytest.mark.parametrize(
  ("function", "arguments", "want"),
  [
    (lambda x: x.sum(), (X,), 30),
    (lambda x: jnp.cumsum(x, axis=0), (X,), 30),
    (layer, (W, X), 2 * 6 * 5 * 4 + 6 * 4),
    (jax.vmap(layer, (None, 0)), (W, X), 2 * 6 * 5 * 4 + 6 * 4),
    (lambda x, i: jax.ops.segment_sum(x, i, 3), (X, IDS), 30),
    (lambda x, i: jnp.concatenate([x.T[::-1], x.T])[:, i], (X, IDS), 0),
    (lambda i: jnp.cumsum(i * 3), (IDS,), 0),
    (lambda x: jax.lax.conv(x[None, None], x[None, None, :2, :3], (1, 1), "VALID"),
     (X,), 2 * 5 * 3 * 6),
    (lambda x: jax.lax.cond(x[0, 0] > 0, jnp.sin, lambda x: x, x), (X,), 30 + 1),
    # A scan takes all its trips, a while loop one.
    (lambda x: jax.lax.scan(lambda c, r: (c + r, None), x[0], x)[0], (X,), 30),
    (lambda x, n: jax.lax.fori_loop(0, n[0], lambda _, c: c * 2.0, x), (X, IDS), 30),
    # The product is not needed.
    (lambda w, x: (layer(w, x), x + 1.0)[1], (W, X), 30),
  ],
)  # fmt: skip
def test_a_count_by_hand(function, arguments, want):
  assert flops.count(function, *arguments) == want


def test_a_gradient_through_a_checkpoint_counts_the_recomputation():
  x, w = jnp.zeros((30, 200)), jnp.zeros((200, 40))

  def training(function):
    return flops.count(jax.value_and_grad(lambda w, x: function(w, x).sum()), w, x)

  product = 2 * 30 * 200 * 40
  # Forward, and the gradient by the weights.
  assert training(layer) == pytest.approx(2 * product, rel=0.02)
  assert training(jax.checkpoint(layer)) == pytest.approx(3 * product, rel=0.02)


def test_dense_layers_are_counted_as_xla_counts_them():
  def loss(w, x):
    return jnp.square(jax.nn.relu(x @ w["a"]) @ w["b"]).sum()

  w = {"a": jnp.ones((64, 128)), "b": jnp.ones((128, 32))}
  x = jnp.ones((50, 64))
  theirs = jax.jit(jax.value_and_grad(loss)).lower(w, x).compile().cost_analysis()
  ours = flops.count(jax.value_and_grad(loss), w, x)
  assert ours == pytest.approx(theirs["flops"], rel=0.02)
