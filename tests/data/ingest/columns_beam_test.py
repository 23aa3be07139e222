"""Tables made by a Beam pipeline are those of one process."""

import json
import warnings

import films
import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from configs import table
from deepsets_jax.data.datasets import registry
from deepsets_jax.data.ingest.columns import build, proposal, spec
from deepsets_jax.data.ingest.columns.profiling import profile_columns
from deepsets_jax.data.ingest.files import opening

with warnings.catch_warnings():
  warnings.simplefilter("ignore")  # Of Beam's own modules.
  pytest.importorskip("apache_beam", reason="needs the extra: beam")
  from deepsets_jax.data.ingest.columns import beam
  from experiments import build_tables

# Of Beam's own modules and its default options.
pytestmark = pytest.mark.filterwarnings("ignore")
DIRECT = ["--runner=DirectRunner"]


def write(folder, rows):
  """The rows as three files; their pattern, and the proposed spec."""
  for i in range(3):
    pq.write_table(rows.slice(20 * i, 20), folder / f"films-{i}.parquet")
  return str(folder / "films-*.parquet")


def proposed(path, label):
  source = opening.open_source(path)
  return proposal.propose(profile_columns(source), source.where, label)[0]


def check_same(got, want):
  """Folders of tables: the same but for rounding of what is scaled."""
  assert sorted(path.name for path in got.iterdir()) == sorted(
    path.name for path in want.iterdir()
  )
  for part, one in build.read_tables(want).items():
    other = build.read_tables(got)[part]
    assert other.schema.modalities == one.schema.modalities
    for name, value in vars(one.schema.target).items():
      found = getattr(other.schema.target, name)
      if name in ("shift", "scale"):
        np.testing.assert_allclose(found, value, rtol=1e-12)
      else:
        assert found == value
    assert other.ids.tolist() == one.ids.tolist()
    np.testing.assert_allclose(other.targets, one.targets, rtol=1e-5, atol=1e-6)
    for name, wanted in one.modalities.items():
      found = other.modalities[name]
      assert found.offsets.tolist() == wanted.offsets.tolist()
      np.testing.assert_allclose(found.values, wanted.values, rtol=1e-5, atol=1e-6)
      np.testing.assert_array_equal(found.weights, wanted.weights)


@pytest.mark.parametrize("label", ["genres", "money"])
def test_are_those_of_one_process(tmp_path, label):
  path = write(tmp_path, films.table(label=label))
  of_spec = proposed(path, label)
  build.build_tables(path, of_spec, 0, tmp_path / "one")
  # Ranges end within files, and some have no row of a part.
  beam.build_tables(path, of_spec, 0, tmp_path / "many", DIRECT, 7)
  check_same(tmp_path / "many", tmp_path / "one")


def test_rows_without_a_label_are_left_out(tmp_path):
  rows = films.table(label="class")
  # The whole of a range.
  labels = [None if 7 <= i < 14 else x for i, x in enumerate(rows["class"].to_pylist())]
  path = write(tmp_path, rows.set_column(7, "class", pa.array(labels)))
  of_spec = proposed(path, "class")
  build.build_tables(path, of_spec, 0, tmp_path / "one")
  beam.build_tables(path, of_spec, 0, tmp_path / "many", DIRECT, 7)
  check_same(tmp_path / "many", tmp_path / "one")
  assert sum(map(len, build.read_tables(tmp_path / "many").values())) == 53


def test_of_csv_are_those_of_one_process(tmp_path):
  path = str(tmp_path / "films.csv")
  rows = films.table(label="class").drop_columns(["cast", "faces", "poster"])
  pcsv.write_csv(rows, path)
  of_spec = proposed(path, "class")
  build.build_tables(path, of_spec, 0, tmp_path / "one")
  beam.build_tables(path, of_spec, 0, tmp_path / "many", DIRECT, 25)
  check_same(tmp_path / "many", tmp_path / "one")


def test_pictures_that_cannot_be_read_are_counted_as_by_one_process(tmp_path):
  rows = films.table(label="class")
  posters = rows["poster"].to_pylist()
  for row in (3, 30, 31):
    posters[row] = b"no picture"
  place = rows.schema.get_field_index("poster")
  path = write(tmp_path, rows.set_column(place, "poster", pa.array(posters)))
  of_spec = proposed(path, "class")
  build.build_tables(path, of_spec, 0, tmp_path / "one")
  beam.build_tables(path, of_spec, 0, tmp_path / "many", DIRECT, 7)
  check_same(tmp_path / "many", tmp_path / "one")
  said = build.unreadable_images(tmp_path / "many", path)
  assert said == build.unreadable_images(tmp_path / "one", path) and "row 31" in said


@pytest.mark.parametrize(
  "row, faces, message",
  [
    (33, [[0.0, 1.0, float("inf"), 0.0]], "row 33, column 'faces': .*inf"),
    (33, [[1.0, 2.0]], "column 'faces'.*of 4 and of 2 numbers|row .*column 'faces'"),
  ],
)
def test_a_bad_value_is_named_and_leaves_nothing(tmp_path, row, faces, message):
  rows = films.table()
  lists = rows["faces"].to_pylist()
  # Lists of any length, as files have them that were not written by this project.
  kind = pa.list_(pa.list_(pa.float32()))
  good = write(tmp_path, rows.set_column(3, "faces", pa.array(lists, kind)))
  of_spec = proposed(good, "genres")
  lists[row] = faces
  path = write(tmp_path, rows.set_column(3, "faces", pa.array(lists, kind)))
  with pytest.raises(Exception, match=message):
    beam.build_tables(path, of_spec, 0, tmp_path / "many", DIRECT, 1)
  assert not list(tmp_path.glob("*many*"))


def test_a_range_that_is_done_twice_is_kept_once(tmp_path):
  path = write(tmp_path, films.table())
  of_spec = proposed(path, "genres")
  build.build_tables(path, of_spec, 0, tmp_path / "one")
  source, folder = opening.open_source(path), tmp_path / "ranges"
  folder.mkdir()
  job = beam.BeamJob(path, source.schema, of_spec, ("Drama", "War"), 20, folder)
  fitted = build.read_encoding(tmp_path / "one" / "encoding.json")
  for _ in range(2):
    beam.WriteRange(job).process((20, np.zeros(9, np.int8)), fitted)
  there = [f for f in folder.iterdir() if not f.name.startswith(".")]
  assert [f.name for f in there] == ["000000000020"]
  assert len(beam.open_table(there[0] / "train")) == 9


def test_the_command_makes_what_a_run_finds(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv("DEEPSETS_JAX_CACHE", str(tmp_path / "cache"))
  path = write(tmp_path, films.table())
  of_spec = proposed(path, "genres")
  spec.path_beside(path).write_text(json.dumps(of_spec.to_json()))
  build_tables.main([path, "--seed=3", "--range_rows=30", *DIRECT])
  assert "'train': 48" in capsys.readouterr().out
  config = table.get_config()
  config.data.path = path
  tables = registry.load_tables(registry.resolve_columns(config).data, 3)
  assert sum(map(len, tables.values())) == 60
  assert len(list((tmp_path / "cache" / "tables").iterdir())) == 1
