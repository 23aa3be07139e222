"""Columns of a table as one modality of cells, beside plain loops over the cells."""

import datetime
import json
import math
import resource

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs import table as table_config
from deepsets_jax.analysis import explanation, robustness
from deepsets_jax.data.datasets import names
from deepsets_jax.data.ingest.columns import (
  cells,
  encoding,
  profiling,
  proposal,
  spec,
)
from deepsets_jax.data.ingest.columns.fields import Fields
from deepsets_jax.data.ingest.columns.numeric import Scalar
from deepsets_jax.data.ingest.columns.tokens import UNKNOWN, Category
from deepsets_jax.data.ingest.files import opening
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import DataError
from deepsets_jax.ragged import from_lengths, from_lists
from deepsets_jax.serving import prediction
from deepsets_jax.serving.predictor import load_predictor
from deepsets_jax.tasks import fit
from deepsets_jax.tasks.supervised import run

KIND = Fields(number=["age", "born"], log=["pay"], category=["city", "vip"])
ROWS = {
  "age": pa.array([41.0, None, 30.0, math.nan, 50.0, 20.0]),
  "born": pa.array([datetime.date(1980, 1, 1 + i) for i in range(5)] + [None]),
  "pay": pa.array([10, 100, None, 1000, 5, None]),
  "city": pa.array(["Oslo", "Oslo", "", "Rome", "Rome", None]),
  "vip": pa.array([True, False, None, True, False, None]),
}
BATCH = pa.RecordBatch.from_pydict(ROWS)


def fitted(kind, batch):
  fitting = kind.fitting()
  for start in range(0, len(batch), 2):  # In parts, as a file comes.
    fitting.add(kind.cells_in(batch.slice(start, 2)))
  return fitting.result()


def test_elements_are_those_of_a_loop_over_the_cells():
  state = fitted(KIND, BATCH)
  got = KIND.encode(KIND.cells_in(BATCH), state)
  want, weights, start = [[] for _ in range(6)], [[] for _ in range(6)], 0
  for column, cells_of in ROWS.items():
    values = cells_of.to_pylist()
    if column in KIND.category:
      found = ["" if v is None else str(v).lower() * (v != "") for v in values]
      found = [v.title() if column == "city" else v for v in found]
      words = [UNKNOWN, *sorted({v for v in found if v})]
      for row, word in enumerate(found):
        if word:
          want[row].append(start + words.index(word))
          weights[row].append(1.0)
      start += len(words)
      continue
    days = datetime.date(1970, 1, 1)
    found = [
      None if v is None or v != v else (v - days).days * 86_400.0 if column == "born"
      else math.log1p(v) if column == "pay" else v
      for v in values
    ]  # fmt: skip
    there = np.array([v for v in found if v is not None])
    for row, value in enumerate(found):
      if value is not None:
        want[row].append(start)
        weights[row].append((value - there.mean()) / there.std())
    start += 1
  assert [list(x) for x in np.split(got.values, got.offsets[1:-1])] == want
  np.testing.assert_allclose(got.weights, np.concatenate(weights), rtol=1e-5)
  assert KIND.modality(state) == Modality(
    "tokens", 9, weighted=True, valued=True, groups=(1, 1, 1, 3, 3)
  )
  assert want[5] == [0] and len(want[0]) == 5


def test_a_column_alone_is_scaled_and_numbered_as_a_modality_of_its_own():
  state = fitted(KIND, BATCH)
  for column, one in KIND.by_column.items():
    own = one.fitting()
    own.add(BATCH[column])
    want = one.encode(BATCH[column], own.result())
    alone = BATCH.select([column])
    got = KIND.encode(KIND.cells_in(alone), state)
    np.testing.assert_array_equal(got.offsets, want.offsets)
    if isinstance(one, Scalar):
      np.testing.assert_allclose(got.weights, want.values[:, 0], rtol=1e-6)
    else:
      first = sum(state.groups[: list(KIND.by_column).index(column)])
      np.testing.assert_array_equal(got.values - first, want.values)


def test_what_was_fitted_goes_to_json_and_back():
  state = fitted(KIND, BATCH)
  again = KIND.restore(json.loads(json.dumps(state.to_json())))
  want, got = (KIND.encode(KIND.cells_in(BATCH), s) for s in (state, again))
  np.testing.assert_array_equal(got.values, want.values)
  np.testing.assert_array_equal(got.weights, want.weights)
  assert again.groups == state.groups


@pytest.mark.parametrize("cut", [0, 1, 4])
def test_what_is_fitted_on_parts_is_merged_in_any_order(cut):
  want = fitted(KIND, BATCH).to_json()
  for order in ((0, 1), (1, 0)):
    parts = []
    for part in (BATCH.slice(0, cut), BATCH.slice(cut)):
      parts.append(KIND.fitting())
      if len(part):
        parts[-1].add(KIND.cells_in(part))
    whole = KIND.fitting()
    for index in order:
      whole.merge(parts[index])
    got = whole.result().to_json()
    assert got.keys() == want.keys()
    for column in want:
      if isinstance(KIND.by_column[column], Category):
        assert got[column] == want[column]
      else:
        for key, value in want[column].items():
          np.testing.assert_allclose(got[column][key], value, rtol=1e-9)


def test_a_column_without_a_training_value_is_left_out():
  batch = BATCH.set_column(0, "age", pa.nulls(6, pa.float64()))
  state = fitted(KIND, batch)
  assert state.groups == (0, 1, 1, 3, 3)
  got = KIND.encode(KIND.cells_in(BATCH), state)
  want = KIND.encode(KIND.cells_in(batch), state)
  np.testing.assert_array_equal(got.values, want.values)
  assert KIND.restore(state.to_json()).groups == state.groups
  with pytest.raises(ValueError, match="no training example has a value in any"):
    fitted(Fields(number=["x"]), pa.RecordBatch.from_pydict({"x": pa.nulls(3)}))


def test_a_bad_cell_is_named_with_its_row_and_column():
  kind = Fields(number=["a", "b"])
  batch = pa.RecordBatch.from_pydict({"a": [1.0, 2.0], "b": [1.0, math.inf]})
  with (
    pytest.raises(DataError, match=r"^w.csv: row 8, column 'b': inf is not finite"),
    cells.locate_errors("w.csv", "fields", [7, 8]),
  ):
    fitted(kind, batch)


LABEL = {"column": "y", "kind": "binary"}


def of(settings):
  return {"modalities": {"all": {"kind": "fields", **settings}}, "label": LABEL}


class TestSpec:
  def test_it_goes_to_json_and_back(self):
    found = spec.from_json(of({"number": ["a"], "category": ["b.c", "a b"]}), "spec")
    assert spec.from_json(json.loads(json.dumps(found.to_json())), "spec") == found
    assert found.columns == ["a", "b.c", "a b", "y"]

  @pytest.mark.parametrize(
    ("settings", "message"),
    [
      ({}, "modalities.all: there is no column; name some under"),
      ({"number": "a"}, "modalities.all.number: 'a'; expected Sequence"),
      ({"number": ["a"], "log": ["a"]}, "all: column 'a' is named twice"),
      ({"number": ["y"]}, "all: its column 'y' is also the label"),
      ({"category": ["a"], "min_count": 0}, "all: min_count 0: expected at least 1"),
    ],
  )
  def test_what_is_wrong_is_named(self, settings, message):
    with pytest.raises(DataError, match=message):
      spec.from_json(of(settings), "w.spec.json")

  def test_a_column_of_another_type_is_named(self):
    found = spec.from_json(of({"number": ["a", "b"]}), "spec")
    schema = pa.schema({"a": pa.int64(), "b": pa.string(), "y": pa.int64()})
    message = (
      "column 'b' is string, but modality 'all' of kind 'number' needs .*'category'"
    )
    with pytest.raises(DataError, match=message):
      found.check(schema, "w.csv")


class TestNames:
  def test_numbers_stand_in_the_unit_of_the_column(self):
    batch = BATCH.append_column("at", pa.array([1_600_000_000] * 6, pa.timestamp("s")))
    kind = Fields(["age", "born", "at"], ["pay"], ["city", "vip"])
    state = fitted(kind, batch)
    called = {"all": kind.names(state, batch.schema)}
    encoded = kind.encode(kind.cells_in(batch), state)
    found = [
      names.text("all", 0, token, called, weight)
      for token, weight in zip(encoded.values, encoded.weights, strict=True)
    ]
    first = ["age = 41", "born = 1980-01-01", "at = 2020-09-13T12:26:40", "pay = 10"]
    assert found[:6] == [*first, "city = Oslo", "vip = true"]
    assert found[-2:] == ["age = 20", "at = 2020-09-13T12:26:40"]
    assert "pay = 1000" in found and "born = 1980-01-05" in found

  def test_every_id_has_one(self):
    state = fitted(KIND, BATCH)
    found = KIND.names(state, BATCH.schema)
    assert len(found) == KIND.modality(state).size
    assert found[3] == f"city = {UNKNOWN}"

  def test_the_encoding_of_a_file_has_them(self):
    value = of({"number": ["age"], "category": ["city"]})
    of_spec = spec.from_json(value | {"label": LABEL | {"column": "vip"}}, "spec")
    fitting = encoding.Fitting(of_spec, "w.csv")
    fitting.add(BATCH, np.arange(6), np.zeros(6, np.int8))
    found = fitting.result(BATCH.schema, ()).names()["all"]
    assert [getattr(one, "column", one) for one in found] == [
      "age",
      f"city = {UNKNOWN}",
      "city = Oslo",
      "city = Rome",
    ]


class TestSchema:
  def test_of_a_valued_modality_goes_to_json_and_back(self):
    modality = Modality("tokens", 3, weighted=True, valued=True, groups=(1, 2))
    schema = Schema({"all": modality}, Target("binary", 1))
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema

  def test_one_that_was_written_without_values_is_read(self):
    schema = Schema({"word": Modality("tokens", 3)}, Target("binary", 1))
    value = schema.to_json()
    for key in ("valued", "groups"):
      del value["modalities"]["word"][key]
    assert Schema.from_json(value) == schema

  @pytest.mark.parametrize(
    ("settings", "message"),
    [
      ({"groups": (1, 1)}, "groups of 2 ids in all, and the size is 3"),
      ({"valued": True, "weighted": True}, "with 0 groups: expected weighted tokens"),
      ({"valued": True, "groups": (3,)}, "weighted False"),
    ],
  )
  def test_what_does_not_fit_is_refused(self, settings, message):
    with pytest.raises(ValueError, match=message):
      Modality("tokens", 3, **settings)


def wide(path, columns, rows=100, seed=0):
  """The spec of a file of columns that all say a little about the label."""
  rng = np.random.default_rng(seed)
  label = rng.integers(0, 2, rows)
  values = (rng.normal(size=(rows, columns)) + 0.5 * label[:, None]).round(3)
  data = {f"f{i}": values[:, i] for i in range(columns)}
  pq.write_table(pa.table(data | {"label": label}), path)
  source = opening.open_source(str(path))
  return proposal.propose(profiling.profile_columns(source), source.where)[0]


class TestWide:
  def test_many_columns_are_proposed_as_one_modality(self, tmp_path):
    few = wide(tmp_path / "few.parquet", proposal._MOST_SCALARS)
    assert len(few.modalities) == proposal._MOST_SCALARS
    many = wide(tmp_path / "many.parquet", proposal._MOST_SCALARS + 1)
    assert list(many.modalities) == ["fields"]
    assert list(many.modalities["fields"].by_column) == [
      f"f{i}" for i in range(proposal._MOST_SCALARS + 1)
    ]

  def test_every_kind_of_scalar_is_gathered_and_the_rest_stays(self):
    kinds = {f"x{i}": Scalar(f"x {i}") for i in range(proposal._MOST_SCALARS)}
    kinds |= {
      "pay": Scalar("pay", scale="log"),
      "city": Category("the city"),
      "user": Category("user", hash=9),
      "fields": spec.Text("fields"),
    }
    found = proposal.merge_scalars(kinds)
    assert list(found) == ["fields_2", "user", "fields"]
    fields = found["fields_2"]
    assert fields.number[:2] == ("x 0", "x 1") and fields.log == ("pay",)
    assert fields.category == ("the city",)

  @pytest.mark.slow
  def test_400_columns_train_in_one_modality(self, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPSETS_JAX_CACHE", str(tmp_path / "cache"))
    found = wide(tmp_path / "wide.parquet", 400, rows=400)
    assert len(found.modalities) == 1
    config = table_config.get_config()
    config.data.columns = found.to_json()
    config.data.path = str(tmp_path / "wide.parquet")
    config.total_steps = 60
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = fit.train_and_evaluate(config, tmp_path / "run")
    assert results["test"]["roc_auc"] > 0.9
    # Kilobytes; what the process had before is not of the run.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2e6


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A short run on two columns of which the first decides, a third, and its file."""
  folder = tmp_path_factory.mktemp("fields")
  rng = np.random.default_rng(0)
  city = rng.choice(["Oslo", "Rome"], 80)
  age = rng.integers(20, 60, 80)
  data = {"age": age, "city": city, "noise": rng.normal(size=80)}
  data["label"] = (city == "Rome").astype(int)
  pq.write_table(pa.table(data), folder / "a.parquet")
  value = of({"number": ["age", "noise"], "category": ["city"]})
  config = table_config.get_config()
  config.total_steps = 8
  config.data.update(path=str(folder / "a.parquet"), batch_size=16, shards=8)
  config.data.columns = value | {"label": {"column": "label", "kind": "binary"}}
  config.model.update(features=8)
  config.model.head.hidden = ()
  config.train.update(eval_every=4)
  config.optim.warmup_steps = 2
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("DEEPSETS_JAX_CACHE", str(folder / "cache"))
    fit.train_and_evaluate(config, folder / "run")
    yield folder / "run", folder / "a.parquet"


def test_an_explanation_names_cells_and_ranks_columns(finished):
  workdir, path = finished
  methods = ["leave_one_out", "shapley"]
  found = explanation.explain(workdir, methods=methods, examples=4)
  rows = pq.read_table(path).to_pylist()
  for example in found.summary["chosen"]:
    row = rows[int(example["id"])]
    texts = {e["text"] for e in example["elements"]["leave_one_out"]["top"]}
    noise = f"noise = {row['noise']:.6g}"
    assert len(texts) == 3 and {f"age = {row['age']}", f"city = {row['city']}"} < texts
    assert float(noise[8:]) == pytest.approx(
      float(next(t for t in texts if t.startswith("noise"))[8:]), rel=1e-4, abs=1e-6
    )
  told = found.summary["methods"]
  assert told["shapley"]["columns"] == {}
  shares = told["leave_one_out"]["columns"]["all"]
  scores = found.attributions["leave_one_out"]
  want = dict.fromkeys(("age", "noise", "city"), 0.0)
  for each in range(4):
    ranked = scores.ranked(each)
    total = sum(abs(e.score) for e in ranked)
    for e in ranked:
      want[("age", "noise", "city", "city", "city")[int(e.value)]] += (
        abs(e.score) / total / 4
      )
  assert shares == pytest.approx(want, rel=1e-5)
  assert "Columns of all" in found._repr_html_()


def test_a_column_that_a_file_has_not_is_absent_from_its_rows(finished, tmp_path):
  workdir, path = finished
  predictor = load_predictor(workdir)
  whole, said = pq.read_table(path), []
  pq.write_table(whole.drop_columns(["noise"]), tmp_path / "without.parquet")
  null = pa.nulls(len(whole), pa.float64())
  place = whole.schema.get_field_index("noise")
  pq.write_table(whole.set_column(place, "noise", null), tmp_path / "null.parquet")
  for name in ("without", "null"):
    source, output = tmp_path / f"{name}.parquet", tmp_path / f"{name}.out.parquet"
    prediction.predict_file(predictor, str(source), output, said.append)
  without, nulls = (
    pq.read_table(tmp_path / f"{n}.out.parquet") for n in ("without", "null")
  )
  assert len(said) == 1 and "no column 'noise': its part of 'all' is absent" in said[0]
  assert without["probability"].equals(nulls["probability"])
  text = pa.array(["a"] * len(whole))
  pq.write_table(whole.set_column(place, "noise", text), tmp_path / "text.parquet")
  with pytest.raises(DataError, match="column 'noise' is string, but the run reads a"):
    prediction.predict_file(
      predictor, str(tmp_path / "text.parquet"), tmp_path / "o.parquet", said.append
    )


def test_a_value_moves_with_its_token():
  tokens = from_lists([[0, 1], [0, 2], [1]], dtype=np.int32)
  tokens = tokens.replace(weights=np.array([0.5, 1, -2, 1, 1], np.float32))
  schema = Schema(
    {"all": Modality("tokens", 3, weighted=True, valued=True, groups=(1, 2))},
    Target("binary", 1),
  )
  table = Table(schema, {"all": tokens}, np.zeros(3, np.float32), np.array(list("abc")))
  found = robustness.noise(table, 1.0, np.random.default_rng(0)).modalities["all"]
  pairs = set(zip(tokens.values.tolist(), tokens.weights.tolist(), strict=True))
  got = list(zip(found.values.tolist(), found.weights.tolist(), strict=True))
  assert set(got) <= pairs and got != list(
    zip(tokens.values.tolist(), tokens.weights.tolist(), strict=True)
  )


@pytest.mark.parametrize(
  ("columns", "valued", "want"),
  [(100, True, 8), (512, True, 8), (513, True, 16), (5000, True, 128), (513, False, 8)],
)
def test_a_shard_of_a_wide_table_has_at_most_8192_cells(columns, valued, want):
  # Eight devices: 16 rows of a batch of 128 are one shard.
  ids = np.tile(np.arange(columns, dtype=np.int32), 3)
  tokens = from_lengths(ids, np.full(3, columns)).replace(
    weights=np.ones(3 * columns, np.float32)
  )
  modality = Modality(
    "tokens", columns, weighted=True, valued=valued, groups=(1,) * columns
  )
  schema = Schema({"all": modality}, Target("binary", 1))
  table = Table(schema, {"all": tokens}, np.zeros(3, np.float32), np.array(list("abc")))
  assert run._shards(table, 128) == want
