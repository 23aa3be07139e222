import numpy as np
import pytest

from deepsets_jax.data.datasets import multiple_features, registry
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import DataError
from deepsets_jax.ragged import from_lists
from deepsets_jax.tasks import defaults


def write_tables(path, words):
  """Three splits of two examples; `words` are those of the training part."""
  schema = Schema({"word": Modality("tokens", 5)}, Target("binary", 1))
  for split in ("train", "validation", "test"):
    lists = words if split == "train" else [[1], [2, 3]]
    modalities = {"word": from_lists(lists, dtype=np.int32)}
    ids = np.array(["a", "b"])
    Table(schema, modalities, np.array([0, 1], np.float32), ids).write(path / split)
  config = defaults.supervised().data
  config.name, config.path = "tables", str(path)
  return config


def test_tables_of_a_folder(tmp_path):
  tables = registry.load_tables(write_tables(tmp_path, [[4], []]), 0)
  assert sorted(tables) == ["test", "train", "validation"]
  assert tables["train"].lengths("word").tolist() == [1, 0]


def test_training_without_any_element_is_refused(tmp_path):
  config = write_tables(tmp_path, [[], []])
  with pytest.raises(DataError, match=r"no training example has.*of \['word'\]"):
    registry.load_tables(config, 0)


def test_multiple_features_by_name_and_seed():
  config = defaults.supervised().data
  config.name = "multiple_features"
  got, want = (
    registry.load_tables(config, 3),
    multiple_features.load_multiple_features(3),
  )
  for split, table in want.items():
    assert got[split].ids.tolist() == table.ids.tolist()


def test_an_unknown_name_is_refused():
  config = defaults.supervised().data
  config.name = "imagenet"
  with pytest.raises(ValueError, match="name 'imagenet'; one of .*'multiple_features'"):
    registry.load_tables(config, 0)
