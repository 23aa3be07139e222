import numpy as np
import pytest

from deepsets_jax.data.tables import batching, budgets
from deepsets_jax.data.tables.batching import Budget
from deepsets_jax.foundation.errors import DataError
from tests.data.tables.batching_test import make_table

LENGTHS = [(i % 3, (7 * i) % 5) for i in range(40)]


def test_usage_agrees_with_a_count():
  table, budget = make_table(LENGTHS), Budget(8, {"image": 16, "word": 24})
  usage = budgets.usage(table, budget)["word"]
  words = np.array([w for _, w in LENGTHS])
  assert (usage.p50, usage.p99, usage.max) == (2, 4, 4)
  assert usage.mean == words.mean() and usage.missing == (words == 0).mean()
  lengths = {k: table.lengths(k) for k in table.modalities}
  order = np.random.default_rng(0).permutation(40)
  shards = len(batching.plan(lengths, order, budget)) - 1
  assert usage.fill == words.sum() / (shards * 24)


def test_proposal_has_room_for_the_largest_example_of_every_split():
  train, test = make_table(LENGTHS), make_table([(60, 0)])
  proposed = budgets.propose({"train": train, "test": test}, 8)
  assert proposed["image"] == 64
  budgets.check({"train": train, "test": test}, proposed)


def test_proposal_leaves_few_shards_short_of_examples():
  # Heavy tails: one example in 50 has 40 words.
  rng = np.random.default_rng(0)
  words = np.where(rng.random(3000) < 0.02, 40, 1)
  table = make_table([(0, int(n)) for n in words])
  proposed = budgets.propose({"train": table}, 50)
  budget = Budget(50, proposed)
  lengths = {k: table.lengths(k) for k in table.modalities}
  bounds = batching.plan(lengths, rng.permutation(3000), budget)
  assert np.diff(bounds).mean() > 0.95 * 50
  assert proposed["image"] == 8  # A modality that is always absent takes a minimum.


def test_an_example_over_budget_is_named_with_the_ways_out():
  tables = {"train": make_table([(1, 1)]), "test": make_table([(0, 1), (3, 9)])}
  with pytest.raises(DataError) as error:
    budgets.check(tables, {"image": 4, "word": 8})
  message = str(error.value)
  for part in (
    "test",
    "'example 1'",
    "9 'word'",
    "budget is 8",
    "config.data.budgets.word",
  ):
    assert part in message
  assert "config.data.overflow" in message
  with pytest.raises(DataError, match="modality 'word' has no budget"):
    budgets.check(tables, {"image": 4})


@pytest.mark.parametrize("policy", ["first", "random"])
def test_truncation_keeps_order_and_is_counted(policy):
  table = make_table([(3, 9), (1, 2), (0, 8)])
  slots = {"image": 3, "word": 5}
  cut, counts = budgets.truncate(table, slots, policy, seed=0)
  assert counts == {"word": 2}
  budgets.check({"train": cut}, slots)
  cut.validate("cut")
  before = [x.tolist() for x in table.modalities["word"].to_lists()]
  after = [x.tolist() for x in cut.modalities["word"].to_lists()]
  assert after[1] == before[1]
  for whole, part in zip(before, after, strict=True):
    assert part == [x for x in whole if x in part]  # A subset, in order.
  assert (after[0] == before[0][:5]) == (policy == "first")
  np.testing.assert_allclose(
    cut.modalities["word"].weights, cut.modalities["word"].values / 7, 1e-6
  )
  again, _ = budgets.truncate(table, slots, policy, seed=0)
  other, _ = budgets.truncate(table, slots, policy, seed=1)
  values = cut.modalities["word"].values
  np.testing.assert_array_equal(again.modalities["word"].values, values)
  if policy == "random":
    assert not np.array_equal(other.modalities["word"].values, values)


def test_slots_usually_fit_a_full_shard():
  table = make_table([(0, 4)] * 40)
  roomy = Budget(8, {"image": 8, "word": 32})
  assert budgets.examples_per_shard(table, roomy) == 8
  tight = Budget(8, {"image": 8, "word": 15})
  assert budgets.examples_per_shard(table, tight) == 3
  large = Budget(30, {"image": 8, "word": 120})  # The second shard has 10 left.
  assert budgets.examples_per_shard(table, large) == 30
  huge = Budget(64, {"image": 8, "word": 256})
  assert budgets.examples_per_shard(table, huge) == 40
