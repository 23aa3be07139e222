import dataclasses
import json
import re
import time

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from deepsets_jax.data.tables import table as table_module
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table, open_table
from deepsets_jax.foundation.errors import DataError
from deepsets_jax.ragged import Ragged, from_lengths, from_lists

FILES = (
  "image.values.npy",
  "image.offsets.npy",
  "word.values.npy",
  "word.offsets.npy",
  "word.times.npy",
  "word.weights.npy",
  "targets.npy",
  "ids.npy",
  "table.json",
)


def make_table():
  """Three examples: one image and two words, nothing, two images."""
  word = from_lists([[3, 4], [], []], dtype=np.int32)
  return Table(
    schema=Schema(
      {
        "image": Modality("vectors", 2),
        "word": Modality("tokens", 5, weighted=True, ordered=True, timed=True),
      },
      Target("multilabel", 2, ("a", "b")),
    ),
    modalities={
      "image": from_lists(
        [[[0, 1]], [], [[2, 3], [4, 5]]], dtype=np.float16, feature_shape=(2,)
      ),
      "word": word.replace(
        weights=np.array([0.5, 2], np.float32), times=np.array([9, 8], np.float32)
      ),
    },
    targets=np.array([[0, 1], [1, 1], [0, 0]], np.float32),
    ids=np.array(["x", "yy", "ünï"]),
  )


def with_modality(name, **fields):
  """The table with replaced fields of one modality, as in a bad file."""
  table = make_table()
  old = table.modalities[name]
  names = [field.name for field in dataclasses.fields(old)]
  # `replace` would refuse bad offsets.
  values = [fields.get(name, getattr(old, name)) for name in names]
  changed = type(old).tree_unflatten(None, values)
  return dataclasses.replace(table, modalities={**table.modalities, name: changed})


def with_target(kind, size, targets):
  table = make_table()
  schema = dataclasses.replace(table.schema, target=Target(kind, size))
  return dataclasses.replace(table, schema=schema, targets=np.asarray(targets))


def assert_equal(a, b):
  assert a.schema == b.schema
  np.testing.assert_array_equal(a.targets, b.targets, strict=True)
  np.testing.assert_array_equal(a.ids, b.ids, strict=True)
  assert list(a.modalities) == list(b.modalities)
  for name, ragged in a.modalities.items():
    other = b.modalities[name]
    np.testing.assert_array_equal(ragged.values, other.values, strict=True)
    np.testing.assert_array_equal(ragged.offsets, other.offsets, strict=True)
    for attribute in ("weights", "times"):
      of_a, of_b = getattr(ragged, attribute), getattr(other, attribute)
      assert (of_a is None) == (of_b is None)
      if of_a is not None:
        np.testing.assert_array_equal(of_a, of_b, strict=True)


class TestOnDisk:
  def test_comes_back_as_it_was(self, tmp_path):
    table = make_table()
    table.write(tmp_path / "some" / "train")
    got = open_table(tmp_path / "some" / "train")
    assert_equal(got.validate("train"), table)
    assert sorted(p.name for p in (tmp_path / "some").rglob("*") if p.is_file()) == (
      sorted(FILES)
    )

  def test_the_units_of_a_target_are_restored(self, tmp_path):
    table = with_target("regression", 2, np.zeros((3, 2), np.float32))
    scaled = dataclasses.replace(
      table.schema.target, shift=(1.5, 0.0), scale=(2.0, 1.0)
    )
    schema = dataclasses.replace(table.schema, target=scaled)
    dataclasses.replace(table, schema=schema).write(tmp_path / "train")
    assert open_table(tmp_path / "train").schema.target == scaled
    # Tables written before targets had units.
    table.write(tmp_path / "old")
    header = json.loads((tmp_path / "old" / "table.json").read_text())
    for name in ("shift", "scale"):
      del header["schema"]["target"][name]
    (tmp_path / "old" / "table.json").write_text(json.dumps(header))
    assert_equal(open_table(tmp_path / "old"), table)
    with pytest.raises(ValueError, match="1 shifts and 2 scales"):
      Target("regression", 2, shift=(1.0,), scale=(1.0, 2.0))

  def test_a_table_without_target_is_restored(self, tmp_path):
    table = with_target("none", 0, np.zeros((3, 0), np.float32))
    table.write(tmp_path / "train")
    got = open_table(tmp_path / "train").validate("train")
    assert_equal(got, table)
    assert len(got) == 3 and got.select(np.array([2])).targets.shape == (1, 0)
    no_example = table_module.blank(table.schema)
    assert no_example.validate("blank").targets.shape == (1, 0)
    assert no_example.targets.dtype == np.float32

  def test_is_memory_mapped(self, tmp_path):
    make_table().write(tmp_path / "train")
    table = open_table(str(tmp_path / "train"))
    word = table.modalities["word"]
    for array in (word.values, word.offsets, word.weights, table.targets, table.ids):
      assert isinstance(array, np.memmap)

  def test_a_modality_that_no_example_has_comes_back(self, tmp_path):
    none = Ragged(np.zeros((0, 2), np.float32), np.zeros(4, np.int64))
    table = with_modality("image", values=none.values, offsets=none.offsets)
    table.write(tmp_path / "train")
    assert_equal(open_table(tmp_path / "train").validate("train"), table)

  def test_opens_in_milliseconds(self, tmp_path):
    count, size = 80_000, 64
    values = np.zeros((count, size), np.float32)
    assert values.nbytes > 20e6
    table = Table(
      Schema({"image": Modality("vectors", size)}, Target("binary", 1)),
      {"image": from_lengths(values, np.ones(count, np.int64))},
      targets=np.zeros(count, np.float32),
      ids=np.arange(count).astype(np.str_),
    )
    table.write(tmp_path / "large")
    seconds = []
    for _ in range(7):
      start = time.perf_counter()
      opened = open_table(tmp_path / "large")
      seconds.append(time.perf_counter() - start)
      assert len(opened) == count
    assert np.median(seconds) < 0.05

  def test_refuses_to_overwrite(self, tmp_path):
    make_table().write(tmp_path / "train")
    with pytest.raises(FileExistsError, match="train exists; remove it"):
      make_table().write(tmp_path / "train")

  @pytest.mark.parametrize("left", [0, 5, 0.5, -1])
  @pytest.mark.parametrize("name", FILES)
  def test_names_a_truncated_file(self, tmp_path, name, left):
    make_table().write(tmp_path / "train")
    path = tmp_path / "train" / name
    content = path.read_bytes()
    end = int(len(content) * left) if isinstance(left, float) else left
    path.write_bytes(content[:end])
    where = "is not a table" if name == "table.json" else f"{re.escape(str(path))} is"
    with pytest.raises(DataError, match=where):
      open_table(tmp_path / "train")

  @pytest.mark.parametrize("name", FILES)
  def test_names_a_missing_file(self, tmp_path, name):
    make_table().write(tmp_path / "train")
    (tmp_path / "train" / name).unlink()
    with pytest.raises(DataError, match=re.escape(name)):
      open_table(tmp_path / "train")

  def test_refuses_a_pickle(self, tmp_path):
    make_table().write(tmp_path / "train")
    path = tmp_path / "train" / "ids.npy"
    np.save(path, np.array(["x", "y", "z"], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"ids.npy is .* Python objects"):
      open_table(tmp_path / "train")
    path.write_bytes(b"\x80\x04N.")  # A pickle of None.
    with pytest.raises(DataError, match=r"ids.npy is .* pickle"):
      open_table(tmp_path / "train")

  @pytest.mark.parametrize("content", [b'["a list"]', b'{"format": "other 7"}'])
  def test_refuses_another_format(self, tmp_path, content):
    make_table().write(tmp_path / "train")
    (tmp_path / "train" / "table.json").write_bytes(content)
    with pytest.raises(DataError, match=r"format .*, expected 'deepsets_jax table 1'"):
      open_table(tmp_path / "train")

  def test_refuses_a_header_that_is_no_text(self, tmp_path):
    (tmp_path / "table.json").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="is not a table"):
      open_table(tmp_path)

  def test_header_is_plain_json(self, tmp_path):
    table = make_table()
    table.write(tmp_path / "train")
    header = json.loads((tmp_path / "train" / "table.json").read_text())
    assert Schema.from_json(header["schema"]) == table.schema


class TestFailedWrite:
  def test_a_bad_table_leaves_nothing(self, tmp_path):
    bad = with_modality("word", values=np.array([3, 9], np.int32))
    with pytest.raises(DataError, match="outside the vocabulary"):
      bad.write(tmp_path / "train")
    assert not list(tmp_path.iterdir())

  @pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
  def test_an_error_half_way_leaves_nothing(self, tmp_path, monkeypatch, error):
    save, saved = np.save, []

    def save_some(path, array):
      if len(saved) == 3:
        raise error
      saved.append(path)
      save(path, array)

    monkeypatch.setattr(table_module.np, "save", save_some)
    with pytest.raises(type(error)):
      make_table().write(tmp_path / "train")
    assert len(saved) == 3
    assert not list(tmp_path.iterdir())


NAN = np.float32("nan")
BAD = {
  "no examples": (
    lambda: make_table().select(np.array([], int)),
    "here: no examples; a split needs at least one",
  ),
  "a modality more": (
    lambda: dataclasses.replace(
      make_table(), modalities={**make_table().modalities, "sound": None}
    ),
    "modality 'sound' is not in both the data .*'sound'.* and the schema",
  ),
  "a modality fewer": (
    lambda: dataclasses.replace(
      make_table(), modalities={"image": make_table().modalities["image"]}
    ),
    "modality 'word' is not in both",
  ),
  "ids": (
    lambda: dataclasses.replace(make_table(), ids=np.array(["x"])),
    "here: 1 ids for 3 examples",
  ),
  "too few offsets": (
    lambda: with_modality("image", offsets=np.array([0, 1, 3])),
    "modality 'image': 3 offsets for 3 examples, expected one more",
  ),
  "offsets that decrease": (
    lambda: with_modality("image", offsets=np.array([0, 2, 1, 3])),
    r"offsets decrease at example 'yy' \(row 1\), from 2 to 1",
  ),
  "offsets that begin late": (
    lambda: with_modality("image", offsets=np.array([1, 1, 1, 3])),
    "offsets run from 1 to 3, expected 0 to the number of elements, 3",
  ),
  "offsets that end early": (
    lambda: with_modality("image", offsets=np.array([0, 1, 1, 2])),
    "offsets run from 0 to 2, expected 0 to the number of elements, 3",
  ),
  "features": (
    lambda: with_modality("image", values=np.zeros((3, 7), np.float32)),
    r"elements of shape \(7,\); the schema has \(2,\)",
  ),
  "tokens that are floats": (
    lambda: with_modality("word", values=np.zeros(2, np.float32)),
    "modality 'word': values of type float32, expected integer",
  ),
  "vectors that are integers": (
    lambda: with_modality("image", values=np.zeros((3, 2), np.int32)),
    "values of type int32, expected floating",
  ),
  "weights that are not declared": (
    lambda: with_modality("image", weights=np.ones(3, np.float32)),
    "modality 'image': weighted is False in the schema",
  ),
  "weights that are missing": (
    lambda: with_modality("word", weights=None),
    "modality 'word': weighted is True in the schema",
  ),
  "times that are not declared": (
    lambda: with_modality("image", times=np.ones(3, np.float32)),
    "timed is False in the schema",
  ),
  "number of times": (
    lambda: with_modality("word", times=np.ones(3, np.float32)),
    "3 times for 2 elements",
  ),
  "a time that is not finite": (
    lambda: with_modality("word", times=np.array([np.nan, 1], np.float32)),
    "not a finite time",
  ),
  "number of weights": (
    lambda: with_modality("word", weights=np.ones(3, np.float32)),
    "3 weights for 2 elements",
  ),
  "token past the vocabulary": (
    lambda: with_modality("word", values=np.array([3, 5], np.int32)),
    r"element 1 of example 'x' \(row 0\), 5, is outside the vocabulary of 5; map",
  ),
  "negative token": (
    lambda: with_modality("word", values=np.array([-1, 3], np.int32)),
    r"element 0 of example 'x' \(row 0\), -1, is outside the vocabulary",
  ),
  "feature not finite": (
    lambda: with_modality("image", values=np.array([[0, 1], [0, 1], [2, NAN]])),
    r"element 1 of example 'ünï' \(row 2\), feature 1 = nan, is not finite; leave",
  ),
  "weight not finite": (
    lambda: with_modality("word", weights=np.array([1, np.inf], np.float32)),
    r"element 1 of example 'x' \(row 0\), inf, is not a finite weight; leave",
  ),
  "shape of targets": (
    lambda: dataclasses.replace(make_table(), targets=np.zeros((3, 3))),
    r"here, target: shape \(3, 3\), expected \(3, 2\)",
  ),
  "binary targets in a column": (
    lambda: with_target("binary", 1, np.zeros((3, 1))),
    r"shape \(3, 1\), expected \(3,\)",
  ),
  "label": (
    lambda: with_target("multilabel", 2, [[0, 1], [1, 0.5], [0, 0]]),
    r"0.5 at example 'yy' \(row 1\), label 1; expected 0 or 1",
  ),
  "binary label": (
    lambda: with_target("binary", 1, [0, 1, NAN]),
    r"nan at example 'ünï' \(row 2\); expected 0 or 1",
  ),
  "class": (
    lambda: with_target("multiclass", 4, [0, 4, 1]),
    r"4 at example 'yy' \(row 1\); expected an integer from 0 to 3",
  ),
  "negative class": (
    lambda: with_target("multiclass", 4, [0, 1, -1]),
    r"-1 at example 'ünï' \(row 2\); expected an integer from 0 to 3",
  ),
  "classes that are floats": (
    lambda: with_target("multiclass", 4, [0.0, 1.0, 2.0]),
    "type float64, expected integers",
  ),
  "regression": (
    lambda: with_target("regression", 1, [[0], [np.inf], [1]]),
    r"inf at example 'yy' \(row 1\), label 0; expected finite",
  ),
  "targets where nothing is predicted": (
    lambda: with_target("none", 0, np.zeros((3, 1))),
    r"here, target: shape \(3, 1\), expected \(3, 0\)",
  ),
}


@pytest.mark.parametrize("name", BAD)
def test_validate_names_problem_place_and_value(name):
  make, message = BAD[name]
  with pytest.raises(DataError, match=message):
    make().validate("here")


def test_validate_names_an_element_far_into_a_column(monkeypatch):
  monkeypatch.setattr(table_module, "_CHECK_ROWS", 2)
  bad = with_modality("image", values=np.array([[0, 1], [2, 3], [NAN, 0]], np.float32))
  with pytest.raises(DataError, match=r"element 1 of example 'ünï' .* feature 0 = nan"):
    bad.validate("here")


@pytest.mark.parametrize(
  ("kind", "size", "targets"),
  [
    ("multilabel", 2, [[0, 1], [1, 1], [0, 0]]),
    ("multiclass", 3, [0, 2, 1]),
    ("binary", 1, [0.0, 1.0, 1.0]),
    ("regression", 1, [[-1.5], [0.0], [9.0]]),
    ("none", 0, [[], [], []]),
  ],
)
def test_validate_returns_a_good_table(kind, size, targets):
  table = with_target(kind, size, targets)
  assert table.validate("here") is table


@pytest.mark.parametrize(
  ("kind", "size"),
  [("none", 1), ("multilabel", 0), ("regression", -1), ("binary", 0), ("binary", 2)],
)
def test_the_size_of_a_target_fits_its_kind(kind, size):
  with pytest.raises(
    ValueError, match=f"target size {size} does not fit kind {kind!r}"
  ):
    Target(kind, size)


@hypothesis.given(
  lengths=st.lists(st.integers(0, 3), min_size=1, max_size=6), data=st.data()
)
def test_rows_and_elements_match_a_loop(lengths, data):
  total = sum(lengths)
  ragged = from_lengths(np.arange(total), np.array(lengths))
  ragged = ragged.replace(weights=ragged.values / 2, times=ragged.values / 4)
  rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=5))
  got = table_module.take_rows(ragged, np.array(rows, int))
  lists = ragged.to_lists()
  assert [x.tolist() for x in got.to_lists()] == [lists[row].tolist() for row in rows]
  np.testing.assert_array_equal(got.weights, got.values / 2)
  np.testing.assert_array_equal(got.times, got.values / 4)
  keep = np.array(
    data.draw(st.lists(st.booleans(), min_size=total, max_size=total)), bool
  )
  got = table_module.take_elements(ragged, keep)
  assert [x.tolist() for x in got.to_lists()] == [
    [value for value in elements.tolist() if keep[value]] for elements in lists
  ]
  np.testing.assert_array_equal(got.weights, got.values / 2)
  np.testing.assert_array_equal(got.times, got.values / 4)


def test_select_takes_rows_in_their_order(tmp_path):
  make_table().write(tmp_path / "train")
  for table in (make_table(), open_table(tmp_path / "train")):
    got = table.select(np.array([2, 0]))
    assert got.ids.tolist() == ["ünï", "x"]
    assert got.targets.tolist() == [[0, 0], [0, 1]]
    assert [x.tolist() for x in got.modalities["word"].to_lists()] == [[], [3, 4]]
    assert got.lengths("image").tolist() == [2, 1]
    assert table.lengths_of("image", np.array([2, 1])).tolist() == [2, 0]
