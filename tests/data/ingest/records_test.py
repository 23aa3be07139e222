import io
import types

import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
import tensorflow_datasets as tfds

from deepsets_jax.data.datasets.builders.base import SetBuilder, optional_picture
from deepsets_jax.data.ingest.files import records
from deepsets_jax.foundation.errors import DataError

F = tfds.features
PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def png():
  buffer = io.BytesIO()
  PIL.Image.fromarray(PIXELS).save(buffer, "PNG")
  return buffer.getvalue()


PNG = png()
string, strings = pa.string(), pa.list_(pa.string())
# A feature, what three records have of it, its Arrow type, and the three cells.
COLUMNS = {
  "int": (np.int32, [1, -2, 3], pa.int32(), [1, -2, 3]),
  "uint64": (np.uint64, [0, 2**64 - 1, 1], pa.uint64(), [0, 2**64 - 1, 1]),
  "uint8": (np.uint8, [0, 255, 1], pa.uint8(), [0, 255, 1]),
  "float": (np.float32, [0.5, np.nan, 2], pa.float32(), [0.5, None, 2]),
  "double": (np.float64, [0.5, np.nan, 2], pa.float64(), [0.5, None, 2]),
  "half": (np.float16, [0.5, np.nan, 2], pa.float32(), [0.5, None, 2]),
  "bool": (np.bool_, [True, False, True], pa.bool_(), [True, False, True]),
  "text": (F.Text(), ["é", "", "c"], string, ["é", None, "c"]),
  "class": (
    F.ClassLabel(names=["no", "yes"]),
    ["yes", -1, 0],
    string,
    ["yes", None, "no"],
  ),
  "number_class": (F.ClassLabel(num_classes=3), [2, 0, 1], string, ["2", "0", "1"]),
  "vector": (
    F.Tensor(shape=(2,), dtype=np.float32),
    [[1, 2], [3, 4], [5, np.inf]],
    pa.list_(pa.float32(), 2),
    [[1, 2], [3, 4], [5, np.inf]],
  ),
  "matrix": (
    F.Tensor(shape=(2, 2), dtype=np.int64),
    [np.arange(4).reshape(2, 2) + k for k in range(3)],
    pa.list_(pa.int64(), 4),
    [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5]],
  ),
  "open": (
    F.Tensor(shape=(None,), dtype=np.float32),
    [[1.5], [], [2, 3]],
    pa.list_(pa.float32()),
    [[1.5], None, [2, 3]],
  ),
  "open_vectors": (
    F.Tensor(shape=(None, 2), dtype=np.float32),
    [np.ones((1, 2)), np.ones((0, 2)), np.zeros((2, 2))],
    pa.list_(pa.list_(pa.float32(), 2)),
    [[[1, 1]], None, [[0, 0], [0, 0]]],
  ),
  "words": (
    F.Tensor(shape=(2,), dtype=np.object_),
    [["a", "b"]] * 3,
    strings,
    [["a", "b"]] * 3,
  ),
  "numbers": (
    F.Sequence(np.int64),
    [[3], [], [1, 2]],
    pa.list_(pa.int64()),
    [[3], None, [1, 2]],
  ),
  "flags": (
    F.Sequence(np.bool_),
    [[True], [], [False]],
    pa.list_(pa.bool_()),
    [[True], None, [False]],
  ),
  "texts": (
    F.Sequence(F.Text()),
    [["a", ""], [], ["é"]],
    strings,
    [["a", ""], None, ["é"]],
  ),
  "classes": (
    F.Sequence(F.ClassLabel(names=["no", "yes"])),
    [["yes", "no"], [], ["no"]],
    strings,
    [["yes", "no"], None, ["no"]],
  ),
  "vectors": (
    F.Sequence(F.Tensor(shape=(2,), dtype=np.float32)),
    [[[1, 2], [3, 4]], [], [[5, 6]]],
    pa.list_(pa.list_(pa.float32(), 2)),
    [[[1, 2], [3, 4]], None, [[5, 6]]],
  ),
  "image": (F.Image(shape=(2, 2, 3)), [PNG] * 3, pa.binary(), [PNG] * 3),
  "images": (
    F.Sequence(F.Image()),
    [[PNG, PNG], [], [PNG]],
    pa.list_(pa.binary()),
    [[PNG, PNG], None, [PNG]],
  ),
  "poster": (optional_picture("x"), [[PNG], [], [PNG]], pa.binary(), [PNG, None, PNG]),
}


class Everything(SetBuilder, skip_registration=True):
  """Two splits, two records and one, of every feature that makes a column."""

  VERSION = tfds.core.Version("1.0.0")
  FEATURES = None
  ROWS = None

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self, features=F.FeaturesDict(self.FEATURES), disable_shuffling=True
    )

  def _split_generators(self, dl_manager):
    return {
      "train": self._generate_examples(self.ROWS[:2]),
      "test": self._generate_examples(self.ROWS[2:]),
    }

  def _generate_examples(self, rows):
    yield from enumerate(rows)


def build(name, folder, features, rows, **kwargs):
  """Builds records of these features below `folder`."""
  attributes = {
    "name": name,
    "FEATURES": features,
    "ROWS": rows,
    "__module__": __name__,
  }
  cls = type(name.title(), (Everything,), attributes, skip_registration=True)
  cls.name = name
  builder = cls(data_dir=folder, **kwargs)
  builder.download_and_prepare()
  return builder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  features = {name: feature for name, (feature, *_) in COLUMNS.items()}
  features["events"] = F.Sequence({"film": F.Text(), "rating": np.float32})
  features["outer"] = {"inner": np.int32, "deep": {"text": F.Text()}}
  rows = []
  for row in range(3):
    example = {name: values[row] for name, (_, values, *_) in COLUMNS.items()}
    for name, value in example.items():
      feature = features[name]
      if isinstance(value, np.ndarray):
        example[name] = value.astype(feature.np_dtype)
    example["events"] = [{"film": f"f{i}", "rating": i} for i in range(row)]
    example["outer"] = {"inner": row, "deep": {"text": "x" * row}}
    rows.append(example)
  build("everything", folder, features, rows)
  return folder


@pytest.fixture(scope="module")
def source(folder):
  return records.open_tfds("tfds:everything", folder)


def cells(source, name, **kwargs):
  batches = list(source.batches([name], **kwargs))
  return [cell for batch in batches for cell in batch.column(0).to_pylist()]


class TestColumns:
  @pytest.mark.parametrize("name", COLUMNS)
  def test_come_with_their_type_and_null_for_what_is_absent(self, source, name):
    *_, kind, want = COLUMNS[name]
    assert source.schema.field(name).type == kind
    assert cells(source, name) == want

  def test_a_sequence_of_dictionaries_is_a_column_for_each_key(self, source):
    assert cells(source, "events.film") == [None, ["f0"], ["f0", "f1"]]
    assert cells(source, "events.rating") == [None, [0], [0, 1]]

  def test_nested_features_are_columns_with_dots(self, source):
    assert cells(source, "outer.inner") == [0, 1, 2]
    assert cells(source, "outer.deep.text") == [None, "x", "xx"]

  def test_the_split_is_a_column_and_splits_follow_each_other(self, source):
    assert source.num_rows == 3
    assert cells(source, "split") == ["train", "train", "test"]

  def test_stored_bytes_of_pictures_decode_to_the_pixels(self, source):
    for content in cells(source, "image"):
      pixels = np.asarray(PIL.Image.open(io.BytesIO(content)))
      np.testing.assert_array_equal(pixels, PIXELS)

  def test_a_split_among_the_features_is_theirs(self, tmp_path):
    rows = [{"split": "a"}, {"split": "b"}, {"split": ""}]
    build("own", tmp_path, {"split": F.Text()}, rows)
    assert cells(records.open_tfds("own", tmp_path), "split") == ["a", "b", None]


class TestBatches:
  def test_have_all_columns_in_the_order_of_the_schema(self, source):
    for batch in source.batches():
      assert batch.schema == source.schema
      batch.validate(full=True)
    assert source.schema.names[:-1] == sorted(source.schema.names[:-1])

  def test_have_the_columns_asked_for_in_that_order(self, source):
    batch = next(source.batches(["text", "int"]))
    assert batch.schema.names == ["text", "int"]

  @pytest.mark.parametrize("rows", [1, 2, 100])
  @pytest.mark.parametrize("start", range(5))
  def test_begin_at_any_row_whatever_their_size(self, folder, start, rows, monkeypatch):
    monkeypatch.setattr(records, "BATCH_ROWS", rows)
    source = records.open_tfds("everything", folder)
    assert cells(source, "int", start=start) == [1, -2, 3][start:]
    sizes = [batch.num_rows for batch in source.batches(["int"], start=start)]
    assert all(0 < size <= rows for size in sizes)

  def test_are_small_where_records_are_large(self, folder, monkeypatch):
    monkeypatch.setattr(records, "BATCH_BYTES", 1)
    source = records.open_tfds("everything", folder)
    assert [batch.num_rows for batch in source.batches()] == [1, 1, 1]

  def test_do_not_read_the_records_before_the_start(self, folder):
    source = records.open_tfds("everything", folder)
    for path in folder.rglob("*-train.array_record*"):
      path.rename(path.with_name("away"))
    try:
      assert cells(source, "int", start=2) == [3]
    finally:
      for path in folder.rglob("away"):
        path.rename(path.with_name("everything-train.array_record-00000-of-00001"))

  def test_an_unknown_column_is_refused(self, source):
    with pytest.raises(DataError, match=r"tfds:everything: no column 'colour'; it has"):
      next(source.batches(["colour"]))


class TestErrors:
  def test_what_is_not_built_says_the_command(self, tmp_path):
    with pytest.raises(DataError, match=r"tfds:mm_imdb/raw: not built in .*build") as e:
      records.open_tfds("tfds:mm_imdb/raw", tmp_path)
    command = f"tools.build_dataset mm_imdb/raw --data_dir={tmp_path}"
    assert command in str(e.value) and "download_and_prepare" in str(e.value)

  def test_a_config_or_version_that_is_not_there_is_not_another(self, folder):
    for name in ("everything/raw", "everything:2.0.0"):
      with pytest.raises(DataError, match=f"tfds:{name}: not built"):
        records.open_tfds(name, folder)
    assert records.open_tfds("everything:1.0.0", folder).num_rows == 3

  @pytest.mark.parametrize("name", ["", "a b", "/", "x:y:z"])
  def test_what_is_no_name_is_refused(self, tmp_path, name):
    with pytest.raises(DataError, match="tfds:"):
      records.open_tfds(name, tmp_path)

  @pytest.mark.parametrize(
    ("feature", "match"),
    [
      (F.Dataset({"a": np.int32}), "Dataset"),
      (
        F.Tensor(shape=(2,), dtype=np.float32, encoding="zlib"),
        r"Tensor \(2,\), makes no column: it is stored encoded",
      ),
      (F.Tensor(shape=(0,), dtype=np.float32), "Tensor .* no numbers"),
      (F.Tensor(shape=(2, None), dtype=np.float32), "Tensor .* lists within lists"),
      (F.Tensor(shape=(2, 2), dtype=np.object_), "Tensor .* lists within lists"),
      (F.Sequence(F.Sequence(np.int32)), "Sequence"),
      (F.Sequence({"y": F.Sequence(F.Text())}), "Sequence"),
    ],
  )
  def test_a_feature_that_makes_no_column_is_named(self, feature, match):
    """Records of some of these only TensorFlow writes, so none are."""
    info = types.SimpleNamespace(features=F.FeaturesDict({"x": feature}), splits={})
    builder = types.SimpleNamespace(info=info, data_path="odd")
    with pytest.raises(DataError, match=f"tfds:odd: feature 'x[.y]*', {match}"):
      records.TfdsSource(builder, "tfds:odd")

  def test_two_features_of_one_column_are_refused(self):
    features = F.FeaturesDict({"x": {"y": np.int32}, "x.y": np.int32})
    info = types.SimpleNamespace(features=features, splits={})
    builder = types.SimpleNamespace(info=info, data_path="odd")
    with pytest.raises(DataError, match=r"two features become the column 'x\.y'"):
      records.TfdsSource(builder, "tfds:odd")

  def test_text_that_is_not_utf8_names_row_and_column(self, tmp_path):
    rows = [{"t": "a"}, {"t": "b"}, {"t": b"\xff\xfe"}]
    build("bytes", tmp_path, {"t": F.Text()}, rows)
    source = records.open_tfds("bytes", tmp_path)
    with pytest.raises(DataError, match=r"column 't': row 2 has .*xff.* not UTF-8"):
      cells(source, "t")

  def test_records_that_do_not_fit_their_features_are_refused(self, tmp_path):
    vector = {"v": F.Tensor(shape=(2,), dtype=np.float32)}
    built = build("shape", tmp_path, vector, [{"v": np.ones(2, np.float32)}] * 3)
    path = built.data_path / "features.json"
    path.write_text(path.read_text().replace('"2"', '"3"'))
    source = records.open_tfds("shape", tmp_path)
    with pytest.raises(DataError, match="row 0 has 2 values, the features say 3"):
      cells(source, "v")

  def test_a_class_that_has_no_name_is_refused(self, tmp_path):
    features = {"c": F.ClassLabel(names=["a", "b"]), "n": np.int64}
    path = build("types", tmp_path, features, [{"c": "b", "n": 1}] * 3).data_path
    (path / "c.labels.txt").write_text("a\n")
    source = records.open_tfds("types", tmp_path)
    with pytest.raises(DataError, match="column 'c': rows 0 to 1 have values that do"):
      cells(source, "c")
    assert cells(source, "n") == [1, 1, 1]

  @pytest.mark.parametrize(
    "damage", ["missing", "empty", "truncated", "without its index", "noise"]
  )
  def test_damaged_files_are_named_with_the_way_out(self, tmp_path, damage):
    path = build("damaged", tmp_path, {"x": F.Text()}, [{"x": "y" * 999}] * 3).data_path
    (file,) = path.glob("*-train.array_record*")
    content = file.read_bytes()
    file.unlink()
    if damage == "noise":
      file.write_bytes(np.random.default_rng(0).bytes(len(content)))
    elif damage != "missing":
      left = {"empty": 0, "truncated": len(content) - 9, "without its index": 1 << 16}
      assert left[damage] < len(content)
      file.write_bytes(content[: left[damage]])
    with pytest.raises(DataError, match=r"tfds:damaged.* build the data set again"):
      cells(records.open_tfds("damaged", tmp_path), "x")

  def test_another_file_format_is_refused(self, tmp_path):
    build("rows", tmp_path, {"x": np.int32}, [{"x": 1}] * 3, file_format="parquet")
    with pytest.raises(DataError, match="as parquet.*file_format='array_record'"):
      records.open_tfds("rows", tmp_path)
