import numpy as np

from deepsets_jax.data.datasets import digits
from deepsets_jax.data.tables.ablation import Bags, keep_elements, keep_modalities

TABLE = digits.planted(0, train_examples=8, max_size=6)[0]["train"]


def bag(table, row):
  """{modality: the elements of an example}."""
  return {name: v.to_lists()[row].tolist() for name, v in table.modalities.items()}


def test_bags_go_through_examples_and_then_modalities():
  bags = Bags(TABLE)
  position = 0
  for row in range(len(TABLE)):
    for index, name in enumerate(TABLE.schema.modalities):
      for _ in range(TABLE.lengths(name)[row]):
        assert (bags.example[position], bags.modality[position]) == (row, index)
        assert bags.position[position] == position - bags.offsets[row]
        position += 1
  assert position == len(bags.modality) == bags.offsets[-1]
  assert bags.lengths.tolist() == np.diff(bags.offsets).tolist()


def test_values_are_split_by_modality_and_joined_again():
  bags = Bags(TABLE)
  values = np.random.default_rng(0).normal(size=len(bags.modality))
  parts = bags.split(values)
  for name, ragged in TABLE.modalities.items():
    assert len(parts[name]) == len(ragged.values)
  np.testing.assert_array_equal(bags.join(parts), values)
  want = [values[bags.example == row].sum() for row in range(len(TABLE))]
  np.testing.assert_allclose(bags.total(values), want)


def test_elements_are_taken_away_as_a_loop_takes_them():
  bags = Bags(TABLE)
  keep = np.random.default_rng(1).random(len(bags.modality)) < 0.5
  kept = keep_elements(TABLE, keep)
  kept.validate("kept")
  position = 0
  for row in range(len(TABLE)):
    want = {}
    for name, elements in bag(TABLE, row).items():
      flags = keep[position : position + len(elements)]
      want[name] = [e for e, flag in zip(elements, flags, strict=True) if flag]
      position += len(elements)
    assert bag(kept, row) == want


def test_modalities_are_taken_away_by_example():
  names = list(TABLE.schema.modalities)
  keep = np.random.default_rng(2).random((len(TABLE), len(names))) < 0.5
  kept = keep_modalities(TABLE, keep)
  for row in range(len(TABLE)):
    before = bag(TABLE, row)
    for name, there in zip(names, keep[row], strict=True):
      assert bag(kept, row)[name] == (before[name] if there else [])
  assert not keep.all() and keep.any()
