"""Pictures of a table that cannot be read, beside the same rows without them."""

import films
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepsets_jax.data.ingest.columns import build, spec
from deepsets_jax.data.ingest.columns.images import ImageColumn
from deepsets_jax.data.ingest.columns.labels import Label
from deepsets_jax.foundation.errors import DataError

BROKEN = (3, 30, 31)
SPEC = spec.Spec(
  {"poster": ImageColumn("poster", size=4)}, Label("class", "multiclass")
)


def made(folder, posters):
  """The folder of tables of films with these posters."""
  rows = films.table(label="class")
  place = rows.schema.get_field_index("poster")
  path = folder.with_suffix(".parquet")
  pq.write_table(rows.set_column(place, "poster", pa.array(posters)), path)
  build.build_tables(str(path), SPEC, 0, folder)
  return folder


def test_they_are_absent_and_counted(tmp_path):
  posters = films.table(label="class")["poster"].to_pylist()
  broken = [b"none" if row in BROKEN else x for row, x in enumerate(posters)]
  without = [None if row in BROKEN else x for row, x in enumerate(posters)]
  broken, without = made(tmp_path / "a", broken), made(tmp_path / "b", without)
  found = build.read_tables(broken)
  for part, expected in build.read_tables(without).items():
    got, want = (t.modalities["poster"] for t in (found[part], expected))
    np.testing.assert_array_equal(got.values, want.values)
    np.testing.assert_array_equal(got.offsets, want.offsets)
  assert build.unreadable_images(without, "films") == ""
  first, *lines = build.unreadable_images(broken, "films").splitlines()
  assert first == "films: 3 images cannot be read and are absent:"
  assert [line.split(",")[0] for line in lines] == [f"  row {row}" for row in BROKEN]


def test_every_run_says_so(tmp_path, monkeypatch):
  monkeypatch.setenv("DEEPSETS_JAX_CACHE", str(tmp_path / "cache"))
  rows = films.table(label="class")
  posters = rows["poster"].to_pylist()
  posters[7] = b"none"
  path = str(tmp_path / "films.parquet")
  place = rows.schema.get_field_index("poster")
  pq.write_table(rows.set_column(place, "poster", pa.array(posters)), path)
  for _ in range(2):
    said = []
    build.tables(path, SPEC, 0, said.append)
    assert "1 image cannot be read and is absent" in said[-1]
    assert f"remove {build.folder_of(path, SPEC, 0)}" in said[-1]


def test_they_are_an_error_if_none_can_be_read_or_the_spec_says_so(tmp_path):
  posters = [f"elsewhere/{row}.png" for row in range(60)]
  with pytest.raises(
    DataError, match=r"60 images cannot.*\n(.*\n)*no image of column 'poster'"
  ):
    made(tmp_path / "a", posters)
  assert not (tmp_path / "a").exists()
  kind = ImageColumn("poster", unreadable="error")
  strict = spec.Spec({"poster": kind}, Label("class", "multiclass"))
  path = str(tmp_path / "a.parquet")
  with pytest.raises(DataError, match="row 0, column 'poster': the image cannot"):
    build.build_tables(path, strict, 0, tmp_path / "b")
