import json

import numpy as np
import pytest

from deepsets_jax.data.datasets import multiple_features, registry
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import ConfigError, DataError
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
  config = defaults.supervised()
  config.data.name = "imagenet"
  for load in (
    lambda: registry.load_tables(config.data, 0),
    lambda: registry.load_histories(config.data),
    lambda: registry.encoding(config.data, 0),
    lambda: registry.resolve_columns(config),
  ):
    with pytest.raises(ConfigError, match="name 'imagenet'; one of .*'digits'"):
      load()


def test_data_of_the_other_kind_are_refused():
  config = defaults.supervised().data
  config.name = "movielens"
  match = r"'movielens' has no tables; one of .*'multiple_features', 'table', 'tables'"
  with pytest.raises(ConfigError, match=match):
    registry.load_tables(config, 0)
  config.name = "digits"
  match = r"'digits' has no histories; one of \['clicks', 'movielens'\]"
  with pytest.raises(ConfigError, match=match):
    registry.load_histories(config)


def test_columns_come_from_the_spec_beside_the_file(tmp_path):
  config = defaults.supervised()
  assert registry.resolve_columns(config) is config
  config.data.name = "table"
  with pytest.raises(ConfigError, match="path is not set"):
    registry.resolve_columns(config)
  label = {"column": "b", "kind": "binary"}
  modalities = {"a": {"kind": "number", "column": "a"}}
  written = {"modalities": modalities, "label": label}
  (tmp_path / "f.spec.json").write_text(json.dumps(written))
  config.data.path = str(tmp_path / "f.csv")
  resolved = registry.resolve_columns(config.lock())
  assert not config.data.columns
  assert resolved.data.columns.modalities.a.column == "a"
  assert resolved.is_locked and resolved.data.path == config.data.path
  assert registry.resolve_columns(resolved) is resolved


@pytest.mark.parametrize("name", registry.ENTRIES)
def test_every_entry_loads_either_tables_or_histories(name):
  entry = registry.find_entry(name)
  assert (entry.load_tables is None) != (entry.load_histories is None)
