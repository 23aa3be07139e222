import csv
import dataclasses
import datetime
import json
import shutil
import types

import films
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from absl import flags

from configs import table as table_config
from deepsets_jax.analysis.attribution import outputs
from deepsets_jax.data.ingest.columns import profiling, proposal, spec
from deepsets_jax.data.ingest.columns.encoding import Encoding
from deepsets_jax.data.ingest.columns.labels import Label, LabelEncoder
from deepsets_jax.data.ingest.columns.numeric import Scalar
from deepsets_jax.data.ingest.columns.tokens import Category, Vocabulary
from deepsets_jax.data.ingest.files import opening, source
from deepsets_jax.foundation.errors import DataError, UserError
from deepsets_jax.foundation.files import write_json
from deepsets_jax.serving import label_metrics, prediction
from deepsets_jax.serving.predictor import load_predictor
from deepsets_jax.tasks import fit, trained
from deepsets_jax.tasks.supervised import encodings
from deepsets_jax.training import metrics, run_folder
from experiments import predict


def run_on(folder, label):
  """A short run on films, and the file that it was trained on."""
  path = folder / "films.parquet"
  pq.write_table(films.table(label=label), path)
  rows = opening.open_source(str(path))
  proposed, _ = proposal.propose(profiling.profile_columns(rows), rows.where, label)
  write_json(spec.path_beside(str(path)), proposed.to_json())
  config = table_config.get_config()
  config.total_steps = 8
  config.data.update(path=str(path), batch_size=16, shards=8)
  config.model.update(features=8)
  config.model.dense.hidden = config.model.head.hidden = ()
  config.optim.warmup_steps = 2
  config.train.update(eval_every=4)
  fit.train_and_evaluate(config, folder / "run")
  return folder / "run", str(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    folder = tmp_path_factory.mktemp("films")
    patch.setenv("DEEPSETS_JAX_CACHE", str(folder / "cache"))
    yield run_on(folder, "genres")


@pytest.fixture(scope="module")
def predictor(finished):
  return load_predictor(finished[0])


def batches_of(monkeypatch, rows):
  monkeypatch.setattr(source, "BATCH_ROWS", rows)


def write(predictor, path, output):
  said = []
  rows = prediction.predict_file(predictor, path, output, said.append)
  table = pq.read_table(output)
  assert rows == len(table)
  return table, said


def test_predictions_are_those_of_the_run_in_the_order_of_the_file(
  finished, predictor, tmp_path
):
  workdir, path = finished
  found, said = write(predictor, path, tmp_path / "out.parquet")
  assert not said
  assert found["film_id"].to_pylist() == pq.read_table(path)["film_id"].to_pylist()
  loaded = trained.load_trained(workdir)
  assert loaded.threshold == predictor.trained.threshold
  rows = {name: row for row, name in enumerate(found["film_id"].to_pylist())}
  for table in loaded.run.tables.values():
    want = 1 / (1 + np.exp(-loaded.logits(table)))
    some = found.take([rows[name] for name in table.ids])
    got = np.array(some["probabilities"].to_pylist())
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
    names = np.array(json.loads(found.schema.metadata[b"labels"]))
    for labels, chances in zip(some["labels"].to_pylist(), want, strict=True):
      assert set(labels) == set(names[chances > loaded.threshold])
  assert found["embedding"].type.list_size == 16


def test_labels_are_those_that_the_metrics_were_measured_with(predictor):
  """Though all probabilities are 1 in float32, as they are in the file."""
  size = predictor.target.size
  logits = np.tile(np.linspace(18, 30, size, dtype=np.float32), (2, 1))
  logits[1] = logits[1, ::-1]
  targets = (logits > 24).astype(np.float32)
  threshold = metrics.choose_threshold(logits, targets)
  got = metrics.for_target(predictor.target, logits, targets, np.ones(2), threshold)
  assert got["f1_samples"] == 1 and 0 < targets.mean() < 1
  strict = dataclasses.replace(predictor.trained, threshold=threshold)
  found = dataclasses.replace(predictor, trained=strict)._predictions(logits)
  assert np.array(found["probabilities"].to_pylist()).min() == 1
  names = np.array(predictor.target.names)
  for labels, row in zip(found["labels"].to_pylist(), targets, strict=True):
    assert labels == names[row > 0].tolist()


def test_an_example_may_have_none_of_the_labels(predictor):
  """In the prediction, in the metric and in what is explained alike."""
  size = predictor.target.size
  logits = np.full((3, size), -2.0, np.float32)
  logits[0, 0], logits[1, 1] = 2.0, -1.0
  targets = np.zeros((3, size), np.float32)
  targets[0, 0] = 1
  half = dataclasses.replace(predictor.trained, threshold=0.5)
  found = dataclasses.replace(predictor, trained=half)._predictions(logits)
  assert found["labels"].to_pylist() == [[predictor.target.names[0]], [], []]
  got = metrics.for_target(predictor.target, logits, targets, np.ones(3), 0.5)
  assert got["f1_samples"] == got["f1_micro"] == 1
  explained = outputs.predicted(predictor.target, logits, 0.5)
  assert explained.weights[:, :2].tolist() == [[1, 0], [0, -1], [-1, 0]]
  assert (explained.of(logits) > 0).all()  # It speaks for each prediction.


def test_importance_adds_up_to_the_prediction(finished, predictor, tmp_path):
  found, _ = write(predictor, finished[1], tmp_path / "out.parquet")
  assert json.loads(found.schema.metadata[b"importance"]) == "shapley"
  assert {f.name for f in found["importance"].type} == set(
    predictor.encoding.spec.modalities
  )
  total = [sum(row.values()) for row in found["importance"].to_pylist()]
  table = films.table().filter(pa.compute.equal(found["film_id"], "nobody"))
  assert len(table) == 0 and np.isfinite(total).all()
  absent = [i for i, row in enumerate(films.table()["plot"].to_pylist()) if row is None]
  for row in absent:
    assert found["importance"][row].as_py()["plot"] == 0


def test_a_missing_column_is_an_absent_modality(finished, predictor, tmp_path):
  whole = films.table()
  pq.write_table(
    whole.drop_columns(["plot", "genres", "film_id"]), tmp_path / "a.parquet"
  )
  null = pa.nulls(len(whole), pa.string())
  place = whole.schema.get_field_index("plot")
  pq.write_table(whole.set_column(place, "plot", null), tmp_path / "b.parquet")
  without, said = write(predictor, str(tmp_path / "a.parquet"), tmp_path / "c.parquet")
  nulls, _ = write(predictor, str(tmp_path / "b.parquet"), tmp_path / "d.parquet")
  assert [line for line in said if "'plot' is absent" in line] == said
  assert without["row"].to_pylist() == list(range(len(whole)))
  assert without["probabilities"].equals(nulls["probabilities"])
  assert without["importance"].equals(nulls["importance"])


def test_an_unknown_column_is_reported_once(finished, predictor, tmp_path, monkeypatch):
  batches_of(monkeypatch, 10)
  more = films.table().append_column("new", pa.array(range(60)))
  pq.write_table(more, tmp_path / "more.parquet", row_group_size=7)
  found, said = write(predictor, str(tmp_path / "more.parquet"), tmp_path / "o.parquet")
  assert len(said) == 1 and "['new']" in said[0]
  want, _ = write(predictor, finished[1], tmp_path / "want.parquet")
  np.testing.assert_allclose(
    np.array(found["probabilities"].to_pylist()),
    np.array(want["probabilities"].to_pylist()),
    rtol=1e-5,
  )


def test_a_column_that_is_not_read_may_be_anything(finished, predictor, tmp_path):
  whole = films.table()
  place = whole.schema.get_field_index("genres")
  other = whole.set_column(place, "genres", pa.array(range(60)))
  pq.write_table(other, tmp_path / "a.parquet")
  found, said = write(predictor, str(tmp_path / "a.parquet"), tmp_path / "b.parquet")
  want, _ = write(predictor, finished[1], tmp_path / "c.parquet")
  assert found.equals(want) and not said


def test_numbers_where_training_had_strings_are_said(finished, predictor, tmp_path):
  pq.write_table(pa.table({"country": [7, 8]}), tmp_path / "a.parquet")
  found, said = write(predictor, str(tmp_path / "a.parquet"), tmp_path / "b.parquet")
  assert len(found) == 2
  assert any("'country' is int64, but was string in training" in line for line in said)


def test_whole_numbers_that_no_float_holds_are_rounded(finished, predictor, tmp_path):
  years = pa.array([2**62 + 1, 1990], pa.int64())
  pq.write_table(pa.table({"year": years}), tmp_path / "a.parquet")
  found, _ = write(predictor, str(tmp_path / "a.parquet"), tmp_path / "b.parquet")
  floats = years.cast(pa.float64(), safe=False)
  pq.write_table(pa.table({"year": floats}), tmp_path / "c.parquet")
  want, _ = write(predictor, str(tmp_path / "c.parquet"), tmp_path / "d.parquet")
  assert found.equals(want)


def test_a_file_with_nothing_to_predict_from_is_told(finished, predictor, tmp_path):
  (tmp_path / "a.jsonl").write_text('{"other": 1, "plot": null}\n{"other": 2}\n')
  found, said = write(predictor, str(tmp_path / "a.jsonl"), tmp_path / "b.parquet")
  assert len(found) == 2 and "all rows are alike" in said[-1]
  pq.write_table(pa.table({"faces": pa.nulls(2)}), tmp_path / "c.parquet")
  _, said = write(predictor, str(tmp_path / "c.parquet"), tmp_path / "d.parquet")
  assert any("column 'faces' is empty: 'faces' is absent" in line for line in said)


def test_it_goes_on_where_it_was_stopped(finished, predictor, tmp_path, monkeypatch):
  batches_of(monkeypatch, 10)
  path = str(tmp_path / "small.parquet")
  pq.write_table(films.table(), path, row_group_size=10)
  want, _ = write(predictor, path, tmp_path / "want.parquet")
  written, output = [], tmp_path / "out.parquet"
  real = prediction.pq.write_table

  def stops(part, path):
    if len(written) == 3:
      raise KeyboardInterrupt
    written.append(path)
    real(part, path)

  monkeypatch.setattr(prediction.pq, "write_table", stops)
  with pytest.raises(KeyboardInterrupt):
    prediction.predict_file(predictor, path, output, print)
  assert not output.exists()
  monkeypatch.setattr(
    prediction.pq, "write_table", lambda t, p: (written.append(p), real(t, p))
  )
  found, said = write(predictor, path, output)
  assert len(written) == 6 and "resuming after 30 finished rows" in said[0]
  assert found.equals(want)
  assert sorted(f.name for f in tmp_path.iterdir()) == [
    "out.parquet",
    "small.parquet",
    "want.parquet",
  ]


def test_a_spreadsheet_and_json_lines_have_the_same(finished, predictor, tmp_path):
  want, _ = write(predictor, finished[1], tmp_path / "a.parquet")
  names = predictor.target.names
  for end in ("csv", "jsonl"):
    output = tmp_path / f"a.{end}"
    assert prediction.predict_file(predictor, finished[1], output, print) == len(want)
  with (tmp_path / "a.csv").open(newline="") as file:
    table = list(csv.DictReader(file))
  objects = [json.loads(line) for line in (tmp_path / "a.jsonl").open()]
  for row, flat, nested in zip(want.to_pylist(), table, objects, strict=True):
    assert flat["film_id"] == nested["film_id"] == row["film_id"]
    assert json.loads(flat["labels"]) == nested["labels"] == row["labels"]
    chances = [float(flat[f"probability: {name}"]) for name in names]
    for got in (chances, [nested["probabilities"][name] for name in names]):
      np.testing.assert_array_equal(np.float32(got), np.float32(row["probabilities"]))
    for name, value in row["importance"].items():
      assert np.float32(flat[f"importance: {name}"]) == np.float32(value)
      assert np.float32(nested["importance"][name]) == np.float32(value)
    for got in (json.loads(flat["embedding"]), nested["embedding"]):
      np.testing.assert_array_equal(np.float32(got), np.float32(row["embedding"]))
  with pytest.raises(ValueError, match="unknown kind of file '.xlsx'.*'.csv'"):
    prediction.predict_file(predictor, finished[1], tmp_path / "a.xlsx", print)


def test_labels_of_a_spreadsheet_are_joined_as_they_were_in_training(
  finished, predictor, tmp_path
):
  spec_of = predictor.encoding.spec
  label = dataclasses.replace(spec_of.label, separator="|")
  encoding = dataclasses.replace(
    predictor.encoding, spec=dataclasses.replace(spec_of, label=label)
  )
  joined = dataclasses.replace(predictor, encoding=encoding)
  prediction.predict_file(joined, finished[1], tmp_path / "a.csv", print)
  want, _ = write(predictor, finished[1], tmp_path / "a.parquet")
  with (tmp_path / "a.csv").open(newline="") as file:
    got = [row["labels"] for row in csv.DictReader(file)]
  assert got == ["|".join(labels) for labels in want["labels"].to_pylist()]


@pytest.mark.parametrize("name", ["labels", "embedding", "importance"])
def test_an_id_of_the_name_of_a_prediction_stays(finished, predictor, tmp_path, name):
  path = tmp_path / "films.parquet"
  pq.write_table(films.table().rename_columns({"film_id": name}), path)
  encoding = dataclasses.replace(
    predictor.encoding,
    spec=dataclasses.replace(predictor.encoding.spec, id=name),
    columns=predictor.encoding.columns.append(pa.field(name, pa.string())),
  )
  renamed = dataclasses.replace(predictor, encoding=encoding)
  found, said = write(renamed, str(path), tmp_path / "out.parquet")
  want, _ = write(predictor, finished[1], tmp_path / "want.parquet")
  assert found[name].to_pylist() == films.table()["film_id"].to_pylist()
  assert found[f"predicted_{name}"].equals(want[name])
  assert f"{name!r} is the id of the row, 'predicted_{name}' the prediction" in said[-1]


def plain(label, kind, names=(), **columns):
  """A predictor of a label of some type, whose model is never asked."""
  encoding = Encoding(
    spec.Spec({"x": Category("x")}, Label("y", label)),
    {"x": Vocabulary(["a", "b"], unknown=0)},
    LabelEncoder(names),
    pa.schema(columns | {"y": kind}),
  )
  model = types.SimpleNamespace(threshold=0.3)
  return prediction.Predictor(model, encoding, "none", "")


@pytest.mark.parametrize(
  ("label", "kind", "names", "want"),
  [
    ("multiclass", pa.int64(), ("-1", "7"), [7, -1]),
    ("multiclass", pa.bool_(), ("false", "true"), [True, False]),
    ("multiclass", pa.float64(), ("0", "2"), [2.0, 0.0]),
    ("multiclass", pa.string(), ("0", "é"), ["é", "0"]),
    (
      "multiclass",
      pa.date32(),
      ("2020-01-01", "2020-01-02"),
      [datetime.date(2020, 1, 2), datetime.date(2020, 1, 1)],
    ),
    ("binary", pa.int64(), (), [1, 0]),
    ("binary", pa.bool_(), (), [True, False]),
    ("binary", pa.float32(), (), [1.0, 0.0]),
    ("multilabel", pa.list_(pa.int32()), ("10", "20"), [[20], []]),
    ("multilabel", pa.string(), ("10", "20"), [["20"], []]),
  ],
)
def test_a_label_has_the_type_that_it_had(label, kind, names, want):
  logits = np.array([[-2, 3], [-1, -3]], np.float32)
  if label == "binary":
    logits = np.array([[-0.5], [-1.0]], np.float32)  # On both sides of .3.
  answers = plain(label, kind, names)._predictions(logits)
  found = answers["labels" if label == "multilabel" else "label"]
  assert found.to_pylist() == want
  assert found.type == (kind if found.type == kind else pa.list_(kind))


def test_evaluation_measures_as_the_report_does(finished, predictor, tmp_path):
  workdir = finished[0]
  results = json.loads((workdir / "results.json").read_text())["test"]
  del results["loss"]
  test = trained.load_trained(workdir).run.tables["test"].ids.tolist()
  whole = films.table()
  some = whole.filter(pa.compute.is_in(whole["film_id"], pa.array(test)))
  # Rows without a label do not count.
  genres = [*some["genres"].to_pylist(), None]
  some = pa.concat_tables([some, whole.slice(0, 1)])
  place = some.schema.get_field_index("genres")
  some = some.set_column(place, "genres", pa.array(genres))
  pq.write_table(some, tmp_path / "new.parquet")
  said, output = [], tmp_path / "out.csv"
  arguments = predictor, str(tmp_path / "new.parquet"), output, said.append
  prediction.predict_file(*arguments, evaluate=True)
  found = json.loads((tmp_path / "out.metrics.json").read_text())
  assert (found["rows"], found["no label"]) == (len(test), 1)
  assert found["threshold"] == predictor.trained.threshold
  assert found["metrics"] == pytest.approx(results, rel=1e-5, nan_ok=True)
  assert said == [f"1 of {len(test) + 1} rows are not evaluated: no label"]
  assert f"{len(test)} rows  f1_micro {results['f1_micro']:.4f}" in predict.measures(
    tmp_path / "out.metrics.json"
  )
  output.unlink()
  with pytest.raises(FileExistsError, match="out.metrics.json exists"):
    prediction.predict_file(*arguments, evaluate=True)
  pq.write_table(whole.drop_columns(["genres"]), tmp_path / "new.parquet")
  (tmp_path / "out.metrics.json").unlink()
  with pytest.raises(DataError, match="--evaluate needs the label, column 'genres'"):
    prediction.predict_file(*arguments, evaluate=True)


def test_a_class_that_the_run_does_not_know_is_not_evaluated(tmp_path):
  one = plain("multiclass", pa.int64(), ("1", "2"))
  columns = {"y": pa.array([2.0, None, 3.0, 1.0])}  # The type may be another.
  batch = pa.RecordBatch.from_pydict(columns)
  found = label_metrics.label_columns(one.encoding, batch, np.arange(4), "new.parquet")
  assert found["measured"].to_pylist() == ["yes", "no label", "unknown class", "yes"]
  logits = np.array([[0, 1], [0, 1], [0, 1], [0, 1]], np.float32)
  flat = pa.array(logits.reshape(-1))
  found["logits"] = pa.FixedSizeListArray.from_arrays(flat, 2)
  pq.write_table(pa.table(found), tmp_path / "part.parquet")
  said = []
  got = label_metrics.measure(one, [tmp_path / "part.parquet"], said.append)
  assert (got["rows"], got["no label"], got["unknown class"]) == (2, 1, 1)
  assert got["metrics"]["accuracy"] == 1 / 2 and len(said) == 2


def test_columns_of_other_types_are_read_where_it_is_plain_what_they_mean(tmp_path):
  kinds = {"flag": Category("flag"), "zip": Category("zip"), "day": Scalar("day")}
  columns = {"flag": pa.bool_(), "zip": pa.int64(), "day": pa.date32(), "y": pa.bool_()}
  days = [datetime.date(2020, 1, 1), None, datetime.date(2021, 5, 4)]
  trained_on = pa.table(
    {
      "flag": pa.array([True, None, False]),
      "zip": pa.array([20095, None, 7]),
      "day": pa.array(days, pa.date32()),
    }
  )
  fitted = {}
  for name, kind in kinds.items():
    fitting = kind.fitting()
    fitting.add(trained_on[name].combine_chunks())
    fitted[name] = fitting.result()
  encoding = Encoding(
    spec.Spec(kinds, Label("y", "binary")), fitted, LabelEncoder(), pa.schema(columns)
  )
  other = pa.table(
    {
      "flag": pa.array([1, None, 0], pa.int8()),
      "zip": pa.array([20095.0, None, 7.0]),
      "day": pa.array(["2020-01-01", None, "2021-05-04T00:00:00"]),
    }
  )
  another = pa.table(
    {
      "flag": pa.array([1.0, None, 0.0]),
      "zip": pa.array(["20095", None, "7"]),
      "day": pa.array(days, pa.date32()).cast(pa.timestamp("ns")),
    }
  )
  rows, tables = np.arange(3), []
  for table in (trained_on, other, another):
    pq.write_table(table, tmp_path / "new.parquet")
    path = str(tmp_path / "new.parquet")
    source_of = opening.open_source(
      path, prediction._types_of_untyped_file(encoding, path, False)
    )
    names = prediction._columns_to_read(encoding, source_of, False, pytest.fail)
    (batch,) = source_of.batches(names)
    batch = prediction._match_types(batch, encoding, rows, path)
    tables.append(encoding.table(batch, rows, path, labelled=False))
  for name in kinds:
    want, *found = (table.modalities[name] for table in tables)
    for one in found:
      np.testing.assert_array_equal(one.values, want.values)
      np.testing.assert_array_equal(one.offsets, want.offsets)
  batch = pa.RecordBatch.from_pydict({"flag": pa.array([1, 2])})
  with pytest.raises(DataError, match="row 1, column 'flag': '2' is not bool; write 0"):
    prediction._match_types(batch, encoding, rows, "new.parquet")


def test_a_picture_that_cannot_be_read_is_absent_unless_strict(
  finished, predictor, tmp_path, monkeypatch
):
  batches_of(monkeypatch, 20)
  whole = films.table()
  place = whole.schema.get_field_index("poster")
  posters = whole["poster"].to_pylist()
  tables = {}
  for name, cell in (("broken", b"no picture"), ("without", None)):
    posters[5] = posters[45] = cell
    path = tmp_path / f"{name}.parquet"
    broken = whole.set_column(place, "poster", pa.array(posters))
    pq.write_table(broken, path, row_group_size=20)
    tables[name], said = write(predictor, str(path), tmp_path / f"{name}.out.parquet")
    if name == "broken":
      lines = said[-1].splitlines()
      assert "2 images cannot be read and are absent" in lines[0]
      assert [line.split(",")[0] for line in lines[1:]] == ["  row 5", "  row 45"]
      output = tmp_path / "strict.parquet"
      with pytest.raises(DataError, match="row 5, column 'poster': the image cannot"):
        prediction.predict_file(predictor, str(path), output, print, strict=True)
      with pytest.raises(DataError, match="of another prediction.*--strict"):
        prediction.predict_file(predictor, str(path), output, print)
    else:
      assert not said
  assert tables["broken"].equals(tables["without"])


def test_parts_of_another_input_are_refused(finished, predictor, tmp_path):
  parts = tmp_path / "out.parquet.parts"
  parts.mkdir()
  write_json(parts / "manifest.json", {"run": "another"})
  with pytest.raises(DataError, match="parts of another prediction.*remove it"):
    prediction.predict_file(predictor, finished[1], tmp_path / "out.parquet", print)


def test_what_cannot_be_predicted_is_named(finished, predictor, tmp_path):
  def refused(table, message):
    pq.write_table(table, tmp_path / "bad.parquet")
    output = tmp_path / "never.parquet"
    with pytest.raises(DataError, match=message):
      prediction.predict_file(predictor, str(tmp_path / "bad.parquet"), output, print)
    assert not output.exists()

  refused(pa.table({"other": [1]}), "none of the columns of the run; it has .'other'")
  refused(pa.table({"plot": [1.5]}), "'plot'.*double")
  refused(pa.table({"year": ["1"]}), "'year' is string, but the run reads a number")
  refused(pa.table({"year": [1, 2, 3], "faces": [[[1.0] * 4], [[1.0]], None]}),
          "row 1, column 'faces': a vector has 1 numbers, others have 4")  # fmt: skip
  refused(pa.table({"plot": pa.array([], pa.string())}), "no rows")
  output = tmp_path / "there.parquet"
  output.touch()
  with pytest.raises(FileExistsError, match="remove it, or choose another --output"):
    prediction.predict_file(predictor, finished[1], output, print)


def test_a_run_on_other_data_is_refused(tmp_path):
  write_json(tmp_path / "config.json", {"data": {"name": "digits"}})
  with pytest.raises(ValueError, match="a run on 'digits'.*configs/table.py"):
    load_predictor(tmp_path)


def test_the_command_says_what_is_wrong(finished, tmp_path, monkeypatch):
  values = flags.FlagValues()
  monkeypatch.setattr(flags, "FLAGS", values)
  for define in ("workdir", "input", "output"):
    flags.DEFINE_string(define, None, "", flag_values=values)
  flags.DEFINE_string("importance", "none", "", flag_values=values)
  flags.DEFINE_multi_string("many", [], "", flag_values=values)
  for define in ("evaluate", "strict", "debug"):
    flags.DEFINE_bool(define, False, "", flag_values=values)

  def says(workdir, message):
    output = f"--output={tmp_path / 'out.parquet'}"
    arguments = ["predict", f"--workdir={workdir}", "--input=no.csv", output]
    with pytest.raises(UserError, match=message):
      predict.main(values(arguments))

  write_json(tmp_path / "config.json", {"data": {"name": "digits"}})
  says(tmp_path, "^.* a run on 'digits'")
  says(finished[0], "^no.csv: no such file")


def test_a_method_that_the_model_has_not_is_refused(finished):
  with pytest.raises(ValueError, match="attention attribution needs a fusion with"):
    load_predictor(finished[0], "attention")
  assert load_predictor(finished[0], "none").method == "none"


def test_another_spec_beside_the_file_is_another_config(finished, tmp_path):
  workdir = finished[0]
  stored = run_folder.read_config(workdir)
  config = table_config.get_config()
  config.update(stored)
  with config.unlocked():
    config.data.columns.modalities.plot.min_count = 7
  with pytest.raises(ValueError, match="plot.min_count: 2 there, 7 here"):
    fit.train_and_evaluate(config, workdir)


def test_a_run_from_before_a_setting_of_its_columns_goes_on(finished, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(finished[0], folder)
  config = json.loads((folder / "config.json").read_text())
  columns = json.loads((folder / "columns.json").read_text())
  for of_spec in (config["data"]["columns"], columns["spec"]):
    for name in ("separator", "unreadable"):
      del of_spec["modalities"]["poster"][name]
  write_json(folder / "config.json", config)
  write_json(folder / "columns.json", columns)
  now = run_folder.read_config(finished[0])
  assert run_folder._plain(fit.adopted(now, folder)) == run_folder._plain(now)
  encodings.keep(encodings.read(finished[0]), folder)


@pytest.mark.slow
def test_a_run_of_fewer_shards_than_devices_predicts(finished, predictor, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(finished[0], folder)
  config = json.loads((folder / "config.json").read_text())
  assert (config["data"]["shards"], config["data"]["batch_size"]) == (8, 16)
  config["data"] |= {"shards": 3, "batch_size": 6}
  write_json(folder / "config.json", config)
  found, _ = write(load_predictor(folder), finished[1], tmp_path / "a.parquet")
  want, _ = write(predictor, finished[1], tmp_path / "b.parquet")
  got, want = (np.array(t["probabilities"].to_pylist()) for t in (found, want))
  np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.slow
def test_a_file_that_has_changed_is_refused(finished, tmp_path):
  folder = tmp_path / "run"
  shutil.copytree(finished[0], folder)
  assert trained.load_trained(folder).threshold > 0
  kept = json.loads((folder / "columns.json").read_text())
  kept["fitted"]["year"]["mean"] = [1.0]  # As if the years had been others.
  write_json(folder / "columns.json", kept)
  with pytest.raises(DataError, match="has changed since it began .modality 'year'"):
    trained.load_trained(folder)
  with pytest.raises(DataError, match="give another --workdir"):
    fit.train_and_evaluate(run_folder.read_config(folder).lock(), folder)


@pytest.mark.slow
@pytest.mark.parametrize("label", ["class", "hit", "money"])
def test_every_kind_of_label(tmp_path, monkeypatch, label):
  monkeypatch.setenv("DEEPSETS_JAX_CACHE", str(tmp_path / "cache"))
  workdir, path = run_on(tmp_path, label)
  found, _ = write(load_predictor(workdir), path, tmp_path / "out.parquet")
  truth = films.table(label=label)[label].to_pylist()
  match label:
    case "class":
      assert set(found["label"].to_pylist()) <= set(truth)
      chances = np.array(found["probabilities"].to_pylist())
      np.testing.assert_allclose(chances.sum(1), 1, rtol=1e-5)
      np.testing.assert_array_equal(found["probability"].to_numpy(), chances.max(1))
    case "hit":
      chance = found["probability"].to_numpy()
      threshold = json.loads((workdir / "results.json").read_text())["threshold"]
      np.testing.assert_array_equal(found["label"].to_numpy(), chance > threshold)
    case "money":
      values = found["value"].to_numpy()
      assert abs(values.mean() - np.mean(truth)) < np.std(truth)  # In its own units.
      both = zip(values, truth, strict=True)
      told = dict(zip(found["film_id"].to_pylist(), both, strict=True))
      results = json.loads((workdir / "results.json").read_text())
      for split in ("validation", "test"):
        names = trained.load_trained(workdir).run.tables[split].ids.tolist()
        errors = [abs(value - true) for value, true in map(told.get, names)]
        assert results[split]["mae"] == pytest.approx(np.mean(errors), rel=1e-5)
