"""Properties of all builders; `builders/` has the tests of single ones."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from deepsets_jax.data.datasets import builders, debian_programs, multiple_features
from deepsets_jax.data.datasets.builders.mm_imdb import mm_imdb_dataset_builder
from deepsets_jax.data.datasets.builders.movielens_sequences import (
  movielens_sequences_dataset_builder,
)
from deepsets_jax.foundation.errors import DataError
from tests.data.datasets.builders import fakes
from tests.data.datasets.builders.building import prepare


def sizes(module, seed):
  return {split: len(rows) for split, rows in module.rows_of_splits(seed)[1].items()}


# The function that makes the manual folder, and the examples of each split.
SETS = {
  "mm_imdb/features": (fakes.mm_imdb_features, fakes.FILMS),
  "mm_imdb/images": (fakes.mm_imdb_features, fakes.FILMS),
  "mm_imdb/raw": (fakes.mm_imdb_raw, fakes.FILMS),
  "movielens_sequences/users": (fakes.movielens_wheel, {"train": 3}),
  "movielens_sequences/films": (fakes.movielens_zip, {"train": 5}),
  "debian_programs/seed1": (None, sizes(debian_programs, 1)),
  "multiple_features/seed2": (None, sizes(multiple_features, 2)),
}
KEYS = {
  "mm_imdb": "imdb_id",
  "movielens_sequences": "id",
  "debian_programs": "package",
  "multiple_features": "id",
}
MANUAL = [name for name, (make, _) in SETS.items() if make]


@pytest.fixture(scope="module", autouse=True)
def small():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(mm_imdb_dataset_builder, "COUNTS", fakes.FILMS)
    patch.setattr(movielens_sequences_dataset_builder, "COUNTS", fakes.MOVIELENS)
    yield


@pytest.fixture(scope="module")
def manual(tmp_path_factory):
  """The manual folder of a set, made once."""
  made = {}

  def folder(name):
    if name not in made:
      made[name] = tmp_path_factory.mktemp("manual")
      make, _ = SETS[name]
      if make is fakes.mm_imdb_features:
        pytest.importorskip("h5py")
      if make:
        make(made[name])
    return made[name]

  return folder


@pytest.fixture(scope="module")
def build(tmp_path_factory, manual):
  """The builder and the records of a set, built once in a folder of its own."""
  done = {}

  def of(name):
    if name not in done:
      folder = tmp_path_factory.mktemp("data")
      done[name] = prepare(name, folder, manual(name)), records(name, folder)
    return done[name]

  return of


@pytest.fixture(scope="module", params=SETS)
def built(request, build):
  """The name of a set, its builder, and its records."""
  return request.param, *build(request.param)


def records(name, folder):
  """The records of each split, as lists."""
  sources = tfds.data_source(name, data_dir=folder)
  return {split: list(source) for split, source in sources.items()}


class TestEveryBuilder:
  def test_is_registered_by_its_name(self, built):
    name, builder, _ = built
    short = name.partition("/")[0]
    assert tfds.builder_cls(short) is builders.BUILDERS[short] is type(builder)

  def test_writes_array_record_files(self, built):
    name, builder, _ = built
    for split in builder.info.splits:
      assert list(builder.data_path.glob(f"*-{split}.array_record-*")), name

  def test_splits_have_the_examples_of_the_source(self, built):
    name, builder, found = built
    counts = {name: info.num_examples for name, info in builder.info.splits.items()}
    _, expected = SETS[name]
    assert counts == expected
    assert {split: len(examples) for split, examples in found.items()} == counts

  def test_records_are_as_the_features_declare(self, built):
    name, builder, found = built
    for examples in found.values():
      for example in examples:
        check(builder.info.features, example, name)

  def test_keys_are_unique(self, built):
    name, _, found = built
    key = KEYS[name.partition("/")[0]]
    keys = [example[key] for examples in found.values() for example in examples]
    assert len(keys) == len(set(keys)) and b"" not in keys

  def test_has_a_description_a_citation_and_a_licence(self, built):
    _, builder, _ = built
    info = builder.info
    assert len(info.description) > 200
    assert "@" in info.citation and "title" in info.citation
    assert info.homepage.startswith("http")
    assert info.redistribution_info.license
    assert builder.builder_config.description
    tags = builder.get_metadata().tags
    assert tags and set(tags) <= set(tfds.core.dataset_metadata.valid_tags())

  @pytest.mark.slow
  def test_a_second_build_gives_the_same(self, built, tmp_path, manual):
    name, _, first = built
    prepare(name, tmp_path, manual(name))
    second = records(name, tmp_path)
    assert list(first) == list(second)
    for split, examples in first.items():
      for a, b in zip(examples, second[split], strict=True):
        assert same(a, b), (name, split, a, b)


def same(a, b):
  """Whether two records are equal; NaN is equal to NaN."""
  if isinstance(a, dict):
    return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
  if isinstance(a, list):
    return len(a) == len(b) and all(map(same, a, b))
  if isinstance(a, np.ndarray) and a.dtype != object:
    return np.array_equal(a, b, equal_nan=True)
  return np.array_equal(a, b) or (a != a and b != b)


def check(feature, value, where):
  """Compares a decoded value with its declaration, element by element."""
  if isinstance(feature, tfds.features.FeaturesDict):
    assert set(value) == set(feature), where
    for name, part in feature.items():
      check(part, value[name], f"{where}, {name}")
  elif isinstance(feature, tfds.features.Sequence):
    if isinstance(feature.feature, tfds.features.FeaturesDict):
      assert len({len(column) for column in value.values()}) == 1, where
      value = [
        dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)
      ]
    for element in value:
      check(feature.feature, element, where)
  elif isinstance(feature, tfds.features.Text):
    assert isinstance(value, bytes) and value.decode() is not None, where
  elif isinstance(feature, tfds.features.ClassLabel):
    assert 0 <= value < feature.num_classes, where
  else:
    found = np.asarray(value)
    expected = tuple(feature.shape)
    assert len(found.shape) == len(expected), where
    assert all(e in (None, f) for e, f in zip(expected, found.shape, strict=True)), (
      where
    )
    if expected:
      assert found.dtype == feature.np_dtype, where
    else:
      assert np.issubdtype(found.dtype, np.number), where


@pytest.mark.parametrize("name", MANUAL)
def test_the_message_for_a_missing_file_says_where_to_get_and_put_it(name, tmp_path):
  with pytest.raises(DataError, match=r"(?s)https?://.*") as raised:
    prepare(name, tmp_path / "data", tmp_path / "empty")
  assert str(tmp_path / "empty") in str(raised.value)
  (tmp_path / "empty").mkdir()
  (tmp_path / "empty" / "other.txt").write_text("")
  with pytest.raises(DataError, match=r"(?s)none of .*https?://") as raised:
    prepare(name, tmp_path / "data", tmp_path / "empty")
  assert str(tmp_path / "empty") in str(raised.value)


def test_the_command_builds_without_tensorflow_from_a_folder_as_by_name(tmp_path):
  """Like `tfds build` on a machine with TensorFlow."""
  folder = builders.BUILDERS["multiple_features"].code_path.parent
  command = [sys.executable, "-m", "tools.build_dataset"]
  for cwd, extra in ((folder, ["--config=seed0"]), (".", ["multiple_features/seed1"])):
    subprocess.run(
      [*command, *extra, f"--data_dir={tmp_path}"],
      cwd=cwd,
      env=environment(),
      check=True,
      capture_output=True,
    )
  for seed in (0, 1):
    found = tfds.data_source(
      f"multiple_features/seed{seed}", data_dir=tmp_path, split="train"
    )
    assert len(found) == 320


def environment():
  root = str(pathlib.Path(__file__).parents[3])
  return os.environ | {"PYTHONPATH": root}


class TestEmbeddedData:
  def test_debian_programs_match_the_table(self, build):
    builder, found = build("debian_programs/seed1")
    tables = debian_programs.load_debian_programs(1)
    names = builder.info.features["labels"].feature.names
    assert tuple(names) == tables["train"].schema.target.names
    for split, table in tables.items():
      examples = found[split]
      assert [e["package"].decode() for e in examples] == table.ids.tolist()
      for example, targets in zip(examples, table.targets, strict=True):
        assert sorted(example["labels"]) == np.flatnonzero(targets).tolist()
      known = [np.isfinite(e["size_kb"]) for e in examples]
      np.testing.assert_array_equal(known, table.lengths("size") == 1)

  def test_multiple_features_match_the_table(self, build):
    _, found = build("multiple_features/seed2")
    tables = multiple_features.load_multiple_features(2)
    pix = np.stack([e["pix"] for e in found["train"]]).astype(np.float64)
    spread = np.where(np.ptp(pix, axis=0) > 0, pix.std(axis=0), np.inf)
    for split, table in tables.items():
      examples = found[split]
      assert [e["id"].decode() for e in examples] == table.ids.tolist()
      assert [e["digit"] for e in examples] == table.targets.tolist()
      want = (np.stack([e["pix"] for e in examples]) - pix.mean(axis=0)) / spread
      np.testing.assert_allclose(table.modalities["pix"].values, want, atol=1e-4)
