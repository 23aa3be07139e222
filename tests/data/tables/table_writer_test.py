import numpy as np
import pytest

from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table, blank, open_table
from deepsets_jax.data.tables.table_writer import TableWriter
from deepsets_jax.ragged import from_lists

SCHEMA = Schema(
  {
    "face": Modality("vectors", 3),
    "word": Modality("tokens", 9, weighted=True),
    "click": Modality("tokens", 4, timed=True),
  },
  Target("multilabel", 2),
)


def table(rng, examples):
  def lists(shape):
    return [rng.random((rng.integers(0, 4), *shape)) for _ in range(examples)]

  words = from_lists([9 * x for x in lists(())], dtype=np.int32)
  clicks = from_lists([4 * x for x in lists(())], dtype=np.int32)
  draw = rng.random(100).astype(np.float32)
  return Table(
    SCHEMA,
    {
      "face": from_lists(lists((3,)), dtype=np.float32, feature_shape=(3,)),
      "word": words.replace(weights=draw[: len(words.values)]),
      "click": clicks.replace(times=draw[: len(clicks.values)]),
    },
    rng.integers(0, 2, (examples, 2)).astype(np.float32),
    np.array([f"é{i}" * (i % 3 + 1) for i in range(examples)]),
  )


def test_parts_give_the_same_folder_as_the_whole(tmp_path):
  whole = table(np.random.default_rng(0), 12)
  whole.write(tmp_path / "whole")
  with TableWriter(tmp_path / "parts", SCHEMA, id_size=30) as writer:
    for rows in (range(5), range(5, 6), range(6, 6), range(6, 12)):
      writer.add(whole.select(np.array(rows, np.int64)))
  got, want = open_table(tmp_path / "parts"), open_table(tmp_path / "whole")
  assert got.schema == want.schema and got.ids.tolist() == want.ids.tolist()
  np.testing.assert_array_equal(got.targets, want.targets)
  for name, ragged in want.modalities.items():
    for field in ("values", "offsets", "weights", "times"):
      a, b = getattr(got.modalities[name], field), getattr(ragged, field)
      assert (a is None) == (b is None)
      if b is not None:
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
  got.validate("parts")


def test_a_modality_without_elements_is_kept(tmp_path):
  with TableWriter(tmp_path / "none", SCHEMA, id_size=1) as writer:
    writer.add(blank(SCHEMA))
    writer.add(blank(SCHEMA))
  got = open_table(tmp_path / "none").validate("none")
  assert len(got) == 2 and not any(got.lengths(n).any() for n in SCHEMA.modalities)


def test_an_error_leaves_nothing(tmp_path):
  with (
    pytest.raises(KeyError),
    TableWriter(tmp_path / "a", SCHEMA, id_size=1) as writer,
  ):
    writer.add(blank(SCHEMA))
    raise KeyError
  assert not list(tmp_path.iterdir())
  with TableWriter(tmp_path / "a", SCHEMA, id_size=1) as writer:
    writer.add(blank(SCHEMA))
  with pytest.raises(FileExistsError, match="remove it or choose another"):
    TableWriter(tmp_path / "a", SCHEMA, id_size=1)
