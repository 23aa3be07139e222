"""The first look at a table, on tables in memory."""

import numpy as np
import pyarrow as pa
import pytest

from deepsets_jax.data.ingest.columns import encoding, spec
from deepsets_jax.data.ingest.columns.splits import LEFT_OUT, PARTS, assign_splits
from deepsets_jax.foundation.errors import DataError


class Memory:
  """A source of columns in memory, in batches of a few rows."""

  where, folder = "films", "."

  def __init__(self, columns, rows=3):
    self._table, self._rows = pa.table(columns), rows
    self.schema, self.num_rows = self._table.schema, len(self._table)

  def batches(self, columns=None, *, start=0):
    table = self._table.select(columns or self.schema.names).slice(start)
    yield from table.to_batches(max_chunksize=self._rows)


def a_spec(**changes):
  value = {
    "modalities": {"x": {"kind": "number", "column": "x"}},
    "label": {"column": "y", "kind": "multiclass"},
  }
  return spec.from_json(value | changes, "spec")


def columns(rows, **more):
  rng = np.random.default_rng(0)
  return {
    "x": rng.random(rows),
    "y": ["a", "b"] * (rows // 2) + ["a"] * (rows % 2),
  } | more


DROP = {"column": "y", "kind": "multiclass", "missing": "drop"}


def test_a_random_split_has_its_shares_and_hangs_on_the_seed_alone():
  source = Memory(columns(100))
  found = assign_splits(source, a_spec(), 0)
  assert found.rows() == {"train": 80, "validation": 10, "test": 10}
  again = assign_splits(Memory(columns(100), rows=7), a_spec(), 0)
  np.testing.assert_array_equal(found.parts, again.parts)
  other = assign_splits(source, a_spec(), 1)
  assert (found.parts != other.parts).any()


@pytest.mark.parametrize("rows", [3, 4, 5, 11])
def test_every_part_of_a_small_table_has_a_row(rows):
  assert min(assign_splits(Memory(columns(rows)), a_spec(), 0).rows().values()) >= 1


def test_groups_stay_together_in_any_order():
  rng = np.random.default_rng(1)
  group = rng.integers(0, 30, 200).astype(str)
  source = Memory(columns(200, g=group))
  parts = assign_splits(source, a_spec(group="g"), 0).parts
  by_group = {name: set(parts[group == name]) for name in set(group)}
  assert all(len(found) == 1 for found in by_group.values())
  sizes = np.bincount([found.pop() for found in by_group.values()])
  assert sizes.tolist() == [24, 3, 3]
  order = rng.permutation(200)
  shuffled = Memory({k: np.array(v)[order] for k, v in columns(200, g=group).items()})
  again = assign_splits(shuffled, a_spec(group="g"), 0).parts
  np.testing.assert_array_equal(again, parts[order])


def test_rows_without_a_group_are_groups_by_themselves():
  source = Memory(columns(50, g=pa.array(["a"] * 10 + [None] * 40)))
  parts = assign_splits(source, a_spec(group="g"), 0).parts
  assert len(set(parts[:10])) == 1 and len(set(parts[10:])) == 3


def test_a_split_is_that_of_its_column():
  words = ["train", "Training ", "VAL", "dev", "test", "holdout"]
  found = assign_splits(Memory(columns(6, s=words)), a_spec(split="s"), 0)
  assert [PARTS[p] for p in found.parts] == ["train"] * 2 + ["validation"] * 2 + [
    "test"
  ] * 2


def test_a_part_that_the_column_does_not_know_is_drawn_from_training():
  words = ["train"] * 90 + ["test"] * 10
  found = assign_splits(Memory(columns(100, s=words)), a_spec(split="s"), 0)
  assert found.rows() == {"train": 80, "validation": 10, "test": 10}
  assert (found.parts[90:] == 2).all()


def test_rows_without_a_label_are_left_out_where_that_is_said():
  source = Memory({"x": [1.0] * 40, "y": [None, "a", "b", None] * 10})
  found = assign_splits(source, a_spec(label=DROP), 0)
  assert (found.parts[::4] == LEFT_OUT).all() and sum(found.rows().values()) == 20
  assert found.label_counts == {"a": 10, "b": 10}


@pytest.mark.parametrize(
  ("more", "changes", "message"),
  [
    ({"y": ["a"] * 5 + [None]}, {}, "films: row 5, column 'y': the label is missing"),
    ({"y": ["a"] * 6}, {}, "label column 'y': its only value is"),
    ({"i": list("abcabd")}, {"id": "i"}, "row 3, column 'i': row 0 has the same id"),
    ({"i": ["a", None, *"cdef"]}, {"id": "i"}, "row 1, column 'i': the id is missing"),
    ({"s": ["train"] * 5 + ["tset"]}, {"split": "s"}, "row 5, column 's': 'tset'"),
    ({"s": ["train"] * 5 + [None]}, {"split": "s"}, "row 5, column 's': None is"),
    ({"s": ["test"] * 6}, {"split": "s"}, "no training row"),
    ({"g": ["a"] * 6}, {"group": "g"}, "cannot split 1 values of 'g' into 3"),
    ({"g": [[1]] * 6}, {"group": "g"}, "'g' is list<.*the group must be a string"),
    ({"y": [None] * 6}, {"label": DROP}, "no row has a label"),
    ({"y": [1.5] * 6}, {}, "row 0, column 'y': 1.5 is not a token"),
    ({"y": ["", "a"] * 3}, {}, "row 0, column 'y': the label is missing"),
  ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_row(more, changes, message):
  with pytest.raises(DataError, match=message):
    assign_splits(Memory(columns(6, **more), rows=2), a_spec(**changes), 0)


class TestEncoding:
  def encoding(self, data, **changes):
    source, of_spec = Memory(data), a_spec(**changes)
    return source, encoding.fit_encoding(
      source, of_spec, assign_splits(source, of_spec, 0)
    )

  def test_it_is_fitted_on_the_training_part_alone(self):
    words = ["train"] * 4 + ["validation", "test"]
    data = columns(6, s=words) | {"x": [1.0, 2, 3, 4, 1e6, -1e6]}
    _, found = self.encoding(data, split="s")
    assert found.fitted["x"].mean.tolist() == [2.5]

  def test_it_goes_to_json_and_back(self):
    data = columns(40, t=["one two", "two"] * 20)
    modalities = {
      "t": {"kind": "text", "column": "t"},
      "x": {"kind": "number", "column": "x"},
    }
    source, found = self.encoding(data, modalities=modalities)
    again = encoding.from_json(found.to_json(), "columns.json")
    assert again.schema == found.schema and again.columns == found.columns
    assert again.names() == {"t": ("two", "one")}
    (batch, *_) = source.batches()
    rows = np.arange(len(batch))
    got, want = (e.table(batch, rows, "f", labelled=True) for e in (again, found))
    for name in modalities:
      a, b = got.modalities[name], want.modalities[name]
      np.testing.assert_array_equal(a.values, b.values)
    assert got.targets.tolist() == want.targets.tolist()

  def test_a_column_that_is_not_there_is_absent(self):
    source, found = self.encoding(columns(40))
    batch = next(iter(source.batches(["y"])))
    got = found.table(batch, np.arange(len(batch)), "f", labelled=False)
    assert not got.lengths("x").any() and not got.targets.any()
    got.validate("f")

  def test_a_bad_value_is_named_with_its_row(self):
    data = columns(6, s=["train"] * 4 + ["validation", "test"])
    data["x"] = [1.0, 2, 3, 4, 5, np.inf]
    source, found = self.encoding(data, split="s")
    *_, last = source.batches()
    with pytest.raises(DataError, match="films: row 5, column 'x': inf is not finite"):
      found.table(last, np.arange(3, 6), "films", labelled=True)
    data["x"] = [1.0, np.inf, 3, 4, 5, 6]
    with pytest.raises(DataError, match="films: row 1, column 'x': inf"):
      self.encoding(data, split="s")

  def test_a_column_without_a_training_value_is_refused(self):
    data = columns(6, s=["train"] * 4 + ["validation", "test"])
    data["x"] = [None] * 4 + [1.0, 2.0]
    with pytest.raises(
      DataError, match="column 'x', modality 'x': no training example"
    ):
      self.encoding(data, split="s")

  def test_numbers_to_predict_are_scaled_and_must_vary(self):
    label = {"column": "y", "kind": "regression"}
    data = columns(40) | {"y": np.arange(40.0)}
    _, found = self.encoding(data, label=label)
    assert found.schema.target.kind == "regression"
    assert found.label_encoder.scale.deviation[0] > 5
    with pytest.raises(DataError, match="every training row has .*nothing to learn"):
      self.encoding(data | {"y": [3.0] * 40}, label=label)

  def test_another_format_is_refused(self):
    with pytest.raises(DataError, match="format None, expected"):
      encoding.from_json({}, "columns.json")
    _, found = self.encoding(columns(40))
    damaged = found.to_json() | {"fitted": {}}
    with pytest.raises(DataError, match="columns.json is damaged"):
      encoding.from_json(damaged, "columns.json")
