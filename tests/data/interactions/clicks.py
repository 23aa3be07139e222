"""Clicks for tests of retrieval: a small shop whose next click can be learned.

Items stand in circles; a user walks along one of them, from any item to the next. The
user's field "taste" names the circle.
"""

import types

import numpy as np

from deepsets_jax.data.interactions.histories import of_events
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.ragged import from_lists
from deepsets_jax.tasks import defaults

CIRCLES, AROUND = 5, 12
# Number of last items that are in no circle and have no events.
NEVER = 4
ITEMS = CIRCLES * AROUND + NEVER
# An item without words and picture, and the item with the most words.
WITHOUT_FIELDS, LARGEST = 4, 7
WORDS = 11
# Users with no, one and two events, of which none are held out.
SHORT = {5: 0, 6: 1, 7: 2}


def make_histories(users=72, longest=9, seed=0):
  """Histories of `users` users with 3 to `longest` events, except those of `SHORT`.

  Every fourth user has no taste, every third no age, so that some have neither.
  """
  rng = np.random.default_rng(seed)
  circles = np.arange(users) % CIRCLES
  user_rows, item_rows, times = [], [], []
  for user, circle in enumerate(circles):
    length = SHORT.get(user, rng.integers(3, longest + 1))
    first = rng.integers(AROUND)
    user_rows += [user] * length
    item_rows += list(circle * AROUND + (first + np.arange(length)) % AROUND)
    times += list(rng.integers(0, 10**9) + np.cumsum(rng.integers(0, 10**5, length)))
  events = (np.array(x, np.int64) for x in (user_rows, item_rows, times))
  where = "clicks"
  tables = _users(circles, rng), _items(rng)
  return of_events(*tables, *events, where=where)[0].validate(where)


def make_source(**settings):
  """A catalog of `make_histories`, as `registry.load_histories` returns it."""
  titles = np.array([f"Item {row}" for row in range(ITEMS)])
  histories = make_histories(**settings)
  return types.SimpleNamespace(histories=histories, titles=titles, vocabularies={})


def small_config(task="retrieval", **changes):
  """Two narrow towers on the clicks; a set is the sum of its elements."""
  config = defaults.DEFAULTS[task]("clicks")
  config.total_steps = 12
  config.data.batch_size = 32
  config.retrieval.dimensions = 8
  if task == "retrieval":
    config.retrieval.num_uniform_negatives = 16
  for model in (config.model, config.item_model):
    model.update(features=8)
    model.set_pool.pools = ("sum",)
  config.model.fading = ("history",)
  config.optim.update(learning_rate=0.03, warmup_steps=2)
  config.train.update(eval_every=5, log_every=1)
  config.update_from_flattened_dict(changes)
  return config


def _users(circles, rng):
  taste = [[] if user % 4 == 3 else [circle] for user, circle in enumerate(circles)]
  age = [[] if user % 3 == 2 else [rng.normal(size=1)] for user in range(len(circles))]
  return _table(
    "user",
    {
      "taste": (from_lists(taste, dtype=np.int32), Modality("tokens", CIRCLES)),
      "age": (
        from_lists(age, dtype=np.float32, feature_shape=(1,)),
        Modality("vectors", 1),
      ),
    },
  )


def _items(rng):
  words = [rng.integers(0, WORDS, 1 + row % 3) for row in range(ITEMS)]
  words[LARGEST] = rng.integers(0, WORDS, 9)
  pictures = [rng.normal(size=(row % 2, 2)) for row in range(ITEMS)]
  words[WITHOUT_FIELDS] = []
  word = Modality("tokens", WORDS, ordered=True, weighted=True)
  ragged = from_lists(words, dtype=np.int32)
  ragged = ragged.replace(weights=rng.random(len(ragged.values)).astype(np.float32))
  return _table(
    "item",
    {
      "word": (ragged, word),
      "picture": (
        from_lists(pictures, dtype=np.float32, feature_shape=(2,)),
        Modality("vectors", 2),
      ),
    },
  )


def _table(prefix, fields):
  modalities = {name: ragged for name, (ragged, _) in fields.items()}
  kinds = {name: kind for name, (_, kind) in fields.items()}
  count = len(next(iter(modalities.values())).offsets) - 1
  return Table(
    Schema(kinds, Target("none", 0)),
    modalities,
    np.zeros((count, 0), np.float32),
    np.array([f"{prefix} {row}" for row in range(count)]),
  )
