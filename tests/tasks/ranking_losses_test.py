import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax.ragged import Ragged
from deepsets_jax.tasks.ranking import losses

BUDGET, LISTS, HIGHEST = 24, 5, 4.0


@st.composite
def list_sets(draw):
  """Up to five lists of up to five candidates; labels are often all the same."""
  sizes = draw(st.lists(st.integers(0, 5), min_size=LISTS, max_size=LISTS))
  hypothesis.assume(sum(sizes) <= BUDGET - 2)
  rng = np.random.default_rng(draw(st.integers(0, 2**16)))
  most = draw(st.sampled_from([1, 2, 5]))
  return [
    (
      rng.normal(size=n).astype(np.float32) * 3,
      rng.integers(0, most, n).astype(np.float32),
    )
    for n in sizes
  ]


def pack(lists, budget=BUDGET):
  """Logits, labels and lists in this many slots; padding has logits, too."""
  lengths = [len(logits) for logits, _ in lists]
  lengths += [0] * (LISTS - len(lengths))
  logits, labels = (
    np.concatenate([np.zeros(0, np.float32), *parts])
    for parts in zip(*lists, strict=True)
  )
  room = budget - len(logits)
  offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
  return (
    jnp.asarray(np.pad(logits, (0, room), constant_values=7)),
    jnp.asarray(np.pad(labels, (0, room))),
    Ragged(jnp.zeros(budget, jnp.int32), jnp.asarray(offsets)),
  )


def softmax(logits, labels):
  gains = 2**labels - 1
  if not gains.sum() or len(logits) < 2:
    return None
  return -(gains / gains.sum()) @ (logits - np.log(np.exp(logits).sum()))


def pairwise(logits, labels):
  found = [
    np.log1p(np.exp(b - a))
    for a, x in zip(logits, labels, strict=True)
    for b, y in zip(logits, labels, strict=True)
    if x > y
  ]
  return np.mean(found) if found else None


def pointwise(logits, labels):
  chances, wanted = 1 / (1 + np.exp(-logits)), labels / HIGHEST
  if not len(logits):
    return None
  return -np.mean(wanted * np.log(chances) + (1 - wanted) * np.log(1 - chances))


LOOPS = {"softmax": softmax, "pairwise": pairwise, "pointwise": pointwise}


@functools.cache
def with_gradient(name):
  """Jitted: sum, weight, and the gradient of the sum by the logits."""
  loss = losses.build_ranking_loss(name, HIGHEST)
  return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.mark.parametrize("name", LOOPS)
class TestEveryLoss:
  def test_has_a_name_in_losses(self, name):
    assert name in losses.LOSSES and len(losses.LOSSES) == len(LOOPS)

  @hypothesis.given(lists=list_sets())
  def test_equals_a_loop_over_lists(self, name, lists):
    (total, count), _ = with_gradient(name)(*pack(lists))
    found = [LOOPS[name](*(x.astype(np.float64) for x in one)) for one in lists]
    found = [x for x in found if x is not None]
    np.testing.assert_allclose(total, sum(found), 1e-4, 1e-5)
    assert count == len(found)
    assert total.dtype == count.dtype == np.float32

  @hypothesis.given(lists=list_sets(), seed=st.integers(0, 2**16))
  def test_order_within_lists_does_not_matter(self, name, lists, seed):
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(logits)) for logits, _ in lists]
    shuffled = [(x[o], y[o]) for (x, y), o in zip(lists, orders, strict=True)]
    (want, count), grads = with_gradient(name)(*pack(lists))
    (got, same), others = with_gradient(name)(*pack(shuffled))
    np.testing.assert_allclose(got, want, 1e-5, 1e-6)
    assert same == count
    begin = 0
    for order in orders:
      own = slice(begin, begin + len(order))
      np.testing.assert_allclose(others[own], grads[own][order], 1e-4, 1e-6)
      begin += len(order)

  @hypothesis.given(lists=list_sets())
  def test_other_lists_and_the_budget_do_not_matter(self, name, lists):
    (total, count), grads = with_gradient(name)(*pack(lists))
    alone = [with_gradient(name)(*pack([one])) for one in lists]
    np.testing.assert_allclose(sum(x[0][0] for x in alone), total, 1e-4, 1e-5)
    assert sum(x[0][1] for x in alone) == count
    begin = 0
    for (logits, _), (_, own) in zip(lists, alone, strict=True):
      got = grads[begin : begin + len(logits)]
      np.testing.assert_allclose(got, own[: len(logits)], 1e-4, 1e-6)
      begin += len(logits)

  def test_the_budget_does_not_matter(self, name):
    lists = [(np.float32([1, 2, 3]), np.float32([0, 2, 1]))]
    for got, want in zip(
      *(jax.tree.leaves(with_gradient(name)(*pack(lists, b))) for b in (24, 3)),
      strict=True,
    ):
      np.testing.assert_allclose(got[:3] if got.ndim else got, want, 1e-5, 1e-6)

  @hypothesis.given(lists=list_sets())
  def test_gradients_are_finite_and_zero_on_padding(self, name, lists):
    grads = with_gradient(name)(*pack(lists))[1]
    assert np.isfinite(grads).all()
    assert not grads[sum(len(logits) for logits, _ in lists) :].any()

  def test_is_zero_without_lists(self, name):
    nothing = np.zeros(0, np.float32)
    (total, count), grads = with_gradient(name)(*pack([(nothing, nothing)]))
    assert total == count == 0 and not np.asarray(grads).any()

  def test_logits_far_apart_do_not_overflow(self, name):
    lists = [(np.float32([900, -900]), np.float32([0, 1]))]
    (total, _), grads = with_gradient(name)(*pack(lists))
    assert np.isfinite(total) and np.isfinite(grads).all() and total > 400


@pytest.mark.parametrize(
  ("labels", "counts"),
  [
    # Of one candidate only what it is by itself can be learned.
    ([3], {"softmax": 0, "pairwise": 0, "pointwise": 1}),
    # Nothing is wanted.
    ([0, 0], {"softmax": 0, "pairwise": 0, "pointwise": 1}),
    # All are wanted alike: a softmax is to be level.
    ([2, 2], {"softmax": 1, "pairwise": 0, "pointwise": 1}),
    ([2, 0], {"softmax": 1, "pairwise": 1, "pointwise": 1}),
    ([], {"softmax": 0, "pairwise": 0, "pointwise": 0}),
  ],
)
def test_a_list_counts_if_the_loss_is_defined_on_it(labels, counts):
  logits = np.arange(len(labels), dtype=np.float32)
  for name, want in counts.items():
    packed = pack([(logits, np.float32(labels))])
    (total, count), grads = with_gradient(name)(*packed)
    assert count == want, name
    assert bool(np.asarray(grads).any()) == bool(total > 0) == bool(want), name


def test_an_unknown_loss_is_named():
  with pytest.raises(
    ValueError, match=r"config.ranking.loss 'hinge'; choose one of \['soft"
  ):
    losses.build_ranking_loss("hinge", 1)
