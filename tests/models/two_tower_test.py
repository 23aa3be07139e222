import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deepsets_jax import fusion
from deepsets_jax.data.interactions import next_item
from deepsets_jax.data.interactions.next_item import HISTORY, users_before
from deepsets_jax.data.tables.batching import Batcher, Budget
from deepsets_jax.data.tables.table import take_rows
from deepsets_jax.models import two_tower
from deepsets_jax.ragged import drop_modalities
from tests.data.interactions.clicks import (
  ITEMS,
  WITHOUT_FIELDS,
  make_histories,
  small_config,
)

SLOTS = {"taste": 8, "age": 8, HISTORY: 72}
ITEM_BUDGET = Budget(ITEMS, {"word": 160, "picture": 32})
# User 5 has no event, and user 11 no field.
USERS = np.array([0, 5, 11, 3, 7, 23])
ORDER_FREE = {"model.fading": ()}


def on_device(table, budget):
  return jax.tree.map(jnp.asarray, Batcher(table, budget).shard(np.arange(len(table))))


@functools.cache
def item_batch():
  return on_device(make_histories().items, ITEM_BUDGET)


def user_table(users=USERS):
  histories = make_histories()
  return users_before(histories, users, histories.offsets[1:][users], 9)


def user_batch(table=None, examples=6):
  table = user_table() if table is None else table
  return on_device(table, Budget(examples, SLOTS))


@functools.cache
def built(changes=()):
  """Towers, their parameters, and the jitted functions of both sides."""
  histories, config = make_histories(), small_config(**dict(changes))
  model = two_tower.build_two_towers(
    config, next_item.schema(histories), histories.items.schema
  )
  given = user_batch().modalities, item_batch().modalities
  params = jax.jit(model.init)(jax.random.key(0), *given)

  def of_users(params, users, items):
    return model.apply(params, users, items, method="embed_users")

  def of_items(params, items):
    return model.apply(params, items, method="embed_items")

  return model, params, jax.jit(of_users), jax.jit(of_items)


def item_vectors(changes=()):
  _, params, _, of_items = built(changes)
  return np.asarray(of_items(params, item_batch().modalities))


def user_vectors(changes=(), batch=None):
  _, params, of_users, _ = built(changes)
  batch = user_batch() if batch is None else batch
  return np.asarray(of_users(params, batch.modalities, item_vectors(changes)))


def key(**changes):
  return tuple(changes.items())


def dense(params, x):
  return x @ params["kernel"] + params["bias"]


def scaled(params, x):
  return x * params["_ModalityScale_0"]["factor"]


def item_loop(params, row):
  """The vector of an item by sums of its elements, in numpy."""
  fields, total = make_histories().items.modalities, np.zeros(8)
  begin, end = fields["word"].offsets[row : row + 2]
  for slot in range(begin, end):
    word = params["encoders_word"]["Embed_0"]["embedding"][fields["word"].values[slot]]
    total += scaled(params["encoders_word"], word) * fields["word"].weights[slot]
  for picture in fields["picture"].to_lists()[row]:
    encoder = params["encoders_picture"]
    total += scaled(encoder, dense(encoder["Dense_0"], picture))
  return dense(params["head"]["Dense_0"], total)


def user_loop(params, table, index, items):
  """The vector of a user; `items` are vectors, or None for separate embeddings."""
  total = np.zeros(8)
  for taste in table.modalities["taste"].to_lists()[index]:
    encoder = params["encoders_taste"]
    total += scaled(encoder, encoder["Embed_0"]["embedding"][taste])
  for age in table.modalities["age"].to_lists()[index]:
    encoder = params["encoders_age"]
    total += scaled(encoder, dense(encoder["Dense_0"], age))
  history = table.modalities[HISTORY].to_lists()[index]
  encoder = params["encoders_history"]
  for place, row in enumerate(history):
    element = encoder["elements"]
    vectors = element["Embed_0"]["embedding"] if items is None else items
    fade = np.exp(encoder["fading"][len(history) - 1 - place])
    total += scaled(element, vectors[row]) * fade
  return dense(params["head"]["Dense_0"], total)


@pytest.mark.parametrize("tie_item_tower", [True, False])
def test_towers_equal_a_loop_over_elements(tie_item_tower):
  changes = key(**{"retrieval.tie_item_tower": tie_item_tower})
  params = jax.device_get(built(changes)[1])["params"]
  items = item_vectors(changes)
  for row in range(ITEMS):
    want = item_loop(params["items"], row)
    np.testing.assert_allclose(items[row], want, 1e-4, 1e-5)
  table = user_table()
  for index, vector in enumerate(user_vectors(changes)):
    want = user_loop(params["users"], table, index, items if tie_item_tower else None)
    np.testing.assert_allclose(vector, want, 1e-4, 1e-5)


def test_towers_that_are_not_tied_embed_each_item_twice():
  apart = built(key(**{"retrieval.tie_item_tower": False}))[1]["params"]
  table = apart["users"]["encoders_history"]["elements"]["Embed_0"]["embedding"]
  assert table.shape == (ITEMS, 8)
  together = built()[1]["params"]["users"]["encoders_history"]["elements"]
  assert list(together) == ["_ModalityScale_0"]  # The item tower's vectors are it.


def test_a_history_trains_only_the_item_tower_if_it_is_tied():
  for tie_item_tower in (True, False):
    changes = key(**{"retrieval.tie_item_tower": tie_item_tower})
    _, params, of_users, _ = built(changes)

    def total(items, params=params, of_users=of_users):
      return jnp.square(of_users(params, user_batch().modalities, items)).sum()

    gradient = np.asarray(jax.grad(total)(jnp.asarray(item_vectors(changes))))
    known = np.unique(user_table().modalities[HISTORY].values) if tie_item_tower else []
    # Item 0, which padding slots point to, gets no gradient either.
    assert np.flatnonzero(np.any(gradient != 0, axis=1)).tolist() == list(known)


def test_a_width_of_its_own_projects_the_history():
  histories, config = make_histories(), small_config(**{"model.features": 16})
  model = two_tower.build_two_towers(
    config, next_item.schema(histories), histories.items.schema
  )
  given = user_batch().modalities, item_batch().modalities
  params = jax.eval_shape(model.init, jax.random.key(0), *given)["params"]["users"]
  encoder = params["encoders_history"]["elements"]
  assert encoder["Dense_0"]["kernel"].shape == (8, 16)
  assert params["head"]["Dense_0"]["kernel"].shape == (16, 8)


@pytest.mark.parametrize(
  ("changes", "ordered"), [((), True), (tuple(ORDER_FREE.items()), False)]
)
def test_the_order_of_a_history_matters_to_a_model_that_fades_alone(changes, ordered):
  table = user_table()
  history = table.modalities[HISTORY]
  lists = [x[::-1] for x in history.to_lists()]
  turned = history.replace(values=np.concatenate(lists))
  table = table.select(np.arange(6))
  table.modalities[HISTORY] = turned
  want, got = user_vectors(changes), user_vectors(changes, user_batch(table))
  same = [np.allclose(a, b, 1e-4, 1e-5) for a, b in zip(want, got, strict=True)]
  assert same == [not ordered or len(x) < 2 for x in lists]


# These take long to compile; `fusion_test` tests them as fusions.
FUSIONS = [
  name if name == "set_pool" else pytest.param(name, marks=pytest.mark.slow)
  for name in fusion.FUSIONS
]


@pytest.mark.parametrize("name", FUSIONS)
class TestEveryFusionAsATower:
  @staticmethod
  def changes(name):
    # Other tests also build the one of the config.
    usual = name == small_config().model.fusion
    return () if usual else key(**{"model.fusion": name, "item_model.fusion": name})

  def test_batch_mates_and_slots_do_not_matter(self, name):
    changes = self.changes(name)
    want = user_vectors(changes)
    for index in range(len(USERS)):
      alone = user_batch(user_table(USERS[index : index + 1]))
      got = user_vectors(changes, alone)[0]
      np.testing.assert_allclose(got, want[index], 1e-4, 1e-5)
    roomy = Budget(8, {field: slots + 8 for field, slots in SLOTS.items()})
    others = on_device(user_table(USERS[[2, 3, 1, 0, 5, 4]]), roomy)
    got = user_vectors(changes, others)
    np.testing.assert_allclose(got[[3, 2, 0, 1, 5, 4]], want, 1e-4, 1e-5)
    assert got.shape == (8, 8)

  def test_a_field_that_is_absent_equals_one_never_declared(self, name):
    changes = self.changes(name)
    table = user_table()
    nothing = take_rows(table.modalities["age"], np.full(6, 2))
    assert not nothing.values.size
    table.modalities["age"] = nothing
    batch = user_batch(table)
    got = user_vectors(changes, batch)
    want = user_vectors(changes, drop_modalities(batch, ["age"]))
    np.testing.assert_allclose(got, want, 1e-5, 1e-6)

  def test_items_and_users_without_fields_have_vectors(self, name):
    changes = self.changes(name)
    table = user_table()
    nobody = table.select(np.array([1]))
    for field, ragged in nobody.modalities.items():
      empty = take_rows(ragged, np.array([0]))
      if field != HISTORY:
        empty = take_rows(table.modalities[field], np.array([2]))
      assert not empty.values.size
      nobody.modalities[field] = empty
    assert np.isfinite(user_vectors(changes, user_batch(nobody))).all()
    assert np.isfinite(item_vectors(changes)[WITHOUT_FIELDS]).all()

  def test_gradients_are_finite_with_sets_that_are_empty(self, name):
    model, params, _, _ = built(self.changes(name))

    @jax.jit
    @jax.grad
    def gradient(params, users, items):
      users, items = model.apply(params, users, items)
      return jnp.sin(users @ items.T).sum()

    users, items = user_batch().modalities, item_batch().modalities
    none = jax.tree.map(lambda x: x * 0, users)
    for given in (users, none):
      found = jax.tree.leaves(gradient(params, given, items))
      assert all(np.isfinite(leaf).all() for leaf in found)


class TestNormalize:
  CHANGES = key(
    **{
      "retrieval.normalize": True,
      "model.head.project": False,
      "item_model.head.project": False,
    }
  )

  def test_normalised_vectors_have_length_one_and_the_same_direction(self):
    model, params, _, _ = built(self.CHANGES)
    got = item_vectors(self.CHANGES)
    plain = model.clone(normalize=False)
    want = plain.apply(params, item_batch().modalities, method="embed_items")
    lengths = np.linalg.norm(want, axis=1, keepdims=True)
    assert lengths[WITHOUT_FIELDS] == 0  # Of zeros nothing points anywhere.
    np.testing.assert_array_equal(got[WITHOUT_FIELDS], 0)
    np.testing.assert_allclose(got * lengths, want, 1e-4, 1e-5)
    for vectors in (got, user_vectors(self.CHANGES)):
      lengths = np.linalg.norm(vectors, axis=1)
      np.testing.assert_allclose(lengths[lengths > 0], 1, 1e-5)

  def test_a_user_without_fields_has_a_bounded_gradient(self):
    # Before training its vector is zeros, which have no direction.
    model, params, _, _ = built(self.CHANGES)
    users = jax.tree.map(lambda x: x * 0, user_batch().modalities)

    items = item_vectors(self.CHANGES)

    @jax.jit
    @jax.grad
    def gradient_of(params):
      return jnp.sum(model.apply(params, users, items, method="embed_users"))

    gradient = gradient_of(params)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) < 10


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"retrieval.dimensions": 0}, "config.retrieval.dimensions is 0"),
    ({"model.fusion": "sum"}, "unknown config.model.fusion 'sum'"),
  ],
)
def test_bad_settings_are_refused(changes, message):
  histories = make_histories()
  with pytest.raises(ValueError, match=message):
    two_tower.build_two_towers(
      small_config(**changes), next_item.schema(histories), histories.items.schema
    )
