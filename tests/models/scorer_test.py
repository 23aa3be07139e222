import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax.data.interactions.candidates import ListBatcher
from deepsets_jax.data.interactions.histories import leave_out
from deepsets_jax.data.interactions.lists import CANDIDATES, RatingLists
from deepsets_jax.data.interactions.next_item import HISTORY
from deepsets_jax.data.tables.batching import Budget
from deepsets_jax.models import scorer
from deepsets_jax.ragged import Ragged
from deepsets_jax.tasks.ranking import losses
from tests.data.interactions.clicks import small_config
from tests.data.interactions.rated import make_histories

BUDGET = Budget(6, {"taste": 6, "age": 6, HISTORY: 24, CANDIDATES: 24})


@functools.cache
def parts():
  """A source, its batcher, the scorer, its parameters, and its jitted logits."""
  histories = make_histories()
  source = RatingLists(histories, leave_out(histories)[1], 4, 3, 0)
  batcher = ListBatcher(source, BUDGET, tie_item_tower=True)
  config = small_config("ranking")
  config.ranking.hidden = (5,)
  model = scorer.build_scorer(config, source.schema(), histories.items.schema)
  apply = jax.jit(model.apply)
  params = jax.jit(model.init)(jax.random.key(0), *inputs(shard(batcher, [0])))
  return source, batcher, model, params, apply


def shard(batcher, lists):
  return jax.tree.map(lambda x: x[0], batcher.batch(0, [np.asarray(lists)], 0, 0))


def inputs(lists):
  return lists.users.modalities, lists.items.modalities, lists.candidates


def logits_of(lists):
  """The logits of each list."""
  *_, params, apply = parts()
  found = np.asarray(apply(params, *inputs(lists)))
  assert found.shape == lists.labels.shape and np.isfinite(found).all()
  return [
    found[a:z]
    for a, z in zip(
      lists.candidates.offsets, lists.candidates.offsets[1:], strict=False
    )
  ]


def test_logits_agree_with_a_loop_over_pairs():
  _, batcher, model, params, _ = parts()
  lists = shard(batcher, [3, 40, 41, 90])
  users, items, _ = inputs(lists)
  towers, own = model.towers, {"params": params["params"]["towers"]}

  def vectors(users, items):
    of_items = towers.apply(own, items, method="embed_items")
    return towers.apply(own, users, of_items, method="embed_users"), of_items

  of_users, of_items = jax.device_get(jax.jit(vectors)(users, items))
  layers = params["params"]
  for i, (got, slots) in enumerate(
    zip(logits_of(lists), lists.candidates.to_lists(), strict=True)
  ):
    for logit, slot in zip(got, slots, strict=True):
      u, v = of_users[i], of_items[slot]
      x = np.concatenate([u, v, u * v])
      dense = layers["mlp"]["Dense_0"]
      x = np.maximum(x @ dense["kernel"] + dense["bias"], 0)
      want = (x @ layers["out"]["kernel"])[0] + layers["out"]["bias"][0] + u @ v
      np.testing.assert_allclose(logit, want, 1e-4, 1e-5)


def test_batch_mates_do_not_matter():
  batcher = parts()[1]
  together = logits_of(shard(batcher, [3, 40, 90]))
  for i, row in enumerate([3, 40, 90]):
    np.testing.assert_allclose(
      logits_of(shard(batcher, [row]))[0], together[i], 1e-5, 1e-6
    )


def test_order_within_lists_and_of_lists_does_not_matter():
  batcher = parts()[1]
  lists = shard(batcher, [3, 40, 90])
  want = logits_of(lists)
  turned = lists.candidates.values.copy()
  for a, z in zip(lists.candidates.offsets, lists.candidates.offsets[1:], strict=False):
    turned[a:z] = turned[a:z][::-1]
  candidates = Ragged(turned, lists.candidates.offsets)
  got = logits_of(lists.replace(candidates=candidates))
  other = logits_of(shard(batcher, [90, 3, 40]))
  for a, b, c in zip(want[:3], got, [other[1], other[2], other[0]], strict=False):
    np.testing.assert_allclose(b[::-1], a, 1e-5, 1e-6)
    np.testing.assert_allclose(c, a, 1e-5, 1e-6)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_gradients_are_finite_with_empty_lists_and_lists_of_one(name):
  _, batcher, model, params, _ = parts()
  lists = shard(batcher, [3, 40])  # Of six users four are padding.
  offsets = lists.candidates.offsets.copy()
  offsets[1] = 1  # The first user has one candidate, the second the rest.
  lists = lists.replace(candidates=Ragged(lists.candidates.values, offsets))
  loss = losses.build_ranking_loss(name, 4.0)

  def total(params, lists):
    logits = model.apply(params, *inputs(lists))
    return loss(logits, lists.labels, lists.candidates)

  graded = jax.jit(jax.value_and_grad(total, has_aux=True))
  (value, count), grads = graded(params, lists)
  assert count == (2 if name == "pointwise" else 1) and value > 0
  leaves = jax.tree.leaves(grads)
  assert all(np.isfinite(leaf).all() for leaf in leaves)
  assert any(leaf.any() for leaf in leaves)
  # Without candidates all gradients are zero.
  candidates = Ragged(lists.candidates.values, 0 * offsets)
  (value, count), grads = graded(params, lists.replace(candidates=candidates))
  assert value == count == 0
  assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(grads))


def test_dropout_is_on_only_in_training():
  source, batcher, _, params, _ = parts()
  config = small_config("ranking")
  config.ranking.update(hidden=(5,), dropout=0.5)
  model = scorer.build_scorer(config, source.schema(), source.histories.items.schema)
  lists = shard(batcher, [3, 40, 90])
  plain = jnp.asarray(np.concatenate(logits_of(lists)))
  evaluated = jax.jit(model.apply)(params, *inputs(lists))
  np.testing.assert_allclose(evaluated[: len(plain)], plain, 1e-5, 1e-6)
  train = jax.jit(functools.partial(model.apply, train=True))
  trained = train(params, *inputs(lists), rngs={"dropout": jax.random.key(0)})
  assert not np.allclose(trained[: len(plain)], plain)
