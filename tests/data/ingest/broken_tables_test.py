"""Thousands of broken tables: each is a correct table, or an error to act on.

A table of good columns is broken in one to three ways and written in some format. Then
either a `DataError` names the file and, for what is wrong in a cell, row and column; or
the tables hold, cell by cell, what a loop over the rows makes of them.
"""

import collections
import csv
import json
import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from deepsets_jax.data.ingest.columns import build, profiling, proposal, spec
from deepsets_jax.data.ingest.files import opening
from deepsets_jax.foundation.errors import DataError

ROWS = 12
SPEC = {
  "modalities": {
    "number": {"kind": "number", "column": "number", "scale": "none"},
    "numbers": {"kind": "numbers", "column": "numbers", "scale": "none"},
    "vector": {"kind": "vector", "column": "vector", "scale": "none"},
    "vectors": {"kind": "vectors", "column": "vectors", "scale": "none"},
    "category": {"kind": "category", "column": "category", "min_count": 1},
    "tokens": {
      "kind": "tokens",
      "column": "tokens",
      "min_count": 1,
      "weights": "none",
    },
    "text": {"kind": "text", "column": "text", "min_count": 1, "weights": "none"},
  },
  "label": {"column": "label", "kind": "multiclass"},
  "id": "id",
  "split": "split",
}


def good(rng):
  """The columns as lists of Python's values."""

  def reals(*shape):
    return np.round(rng.normal(size=shape), 3).tolist()

  return {
    "id": [f"row-{i}" for i in range(ROWS)],
    "split": ["train"] * 8 + ["validation"] * 2 + ["test"] * 2,
    "number": reals(ROWS),
    "numbers": [reals(n) for n in rng.integers(0, 4, ROWS)],
    "vector": reals(ROWS, 3),
    "vectors": [reals(n, 2) for n in rng.integers(0, 4, ROWS)],
    "category": rng.choice(["red", "blue"], ROWS).tolist(),
    "tokens": [
      rng.choice(["a", "b", "c"], n).tolist() for n in rng.integers(0, 4, ROWS)
    ],
    "text": [f"one {w} two" for w in rng.choice(["x", "y"], ROWS)],
    "label": [["no", "yes"][i % 2] for i in range(ROWS)],
  }


class Break:
  """Ways to break a table: each changes the columns, and says what must be named.

  Returned is None where the table stays legal, or is an error that depends on the
  format; else the (row, column) that a message names if nothing else is wrong.
  """

  def nulls(columns, rng):
    name = rng.choice([n for n in columns if n not in ("id", "split", "label")])
    for row in np.flatnonzero(rng.random(ROWS) < 0.5):
      columns[name][row] = None

  def nulls_inside(columns, rng):
    name = rng.choice(["numbers", "tokens", "vectors"])
    for cell in columns[name]:
      cell.insert(int(rng.integers(0, len(cell) + 1)), None)

  def null_in_a_vector(columns, rng):
    row = int(rng.integers(ROWS))
    columns["vector"][row] = [1.0, None, 2.0]
    return row, "vector"

  def null_in_vectors(columns, rng):
    row = int(rng.integers(ROWS))
    columns["vectors"][row] = [[1.0, 2.0], [None, 1.0]]
    return row, "vectors"

  def empty(columns, rng):
    name = rng.choice(["numbers", "tokens", "vectors", "text", "category"])
    fill = "" if name in ("text", "category") else []
    for row in np.flatnonzero(rng.random(ROWS) < 0.5):
      columns[name][row] = fill

  def huge(columns, rng):
    row = int(rng.integers(ROWS))
    columns["numbers"][row] = np.round(rng.normal(size=5000), 3).tolist()
    columns["tokens"][row] = ["a", "b"] * 2500

  def not_a_number(columns, rng):
    columns["number"][int(rng.integers(ROWS))] = math.nan
    columns["numbers"][int(rng.integers(ROWS))] = [math.nan, 1.0]

  def words_for_missing(columns, rng):
    for row in np.flatnonzero(rng.random(ROWS) < 0.3):
      columns["number"][row] = str(rng.choice(["NA", "?", "null", " n/a"]))
    columns["number"][0] = 0.5

  def spaces_around(columns, rng):
    columns["category"] = [f" {cell}\t" for cell in columns["category"]]
    columns["text"] = [f"  {cell}" for cell in columns["text"]]

  def infinite(columns, rng):
    row = int(rng.integers(ROWS))
    columns["number"][row] = math.inf
    return row, "number"

  def infinite_inside(columns, rng):
    row = int(rng.integers(ROWS))
    columns["numbers"][row] = [1.0, -math.inf]
    return row, "numbers"

  def too_large(columns, rng):
    row = int(rng.integers(ROWS))
    columns["number"][row] = 1e200
    return row, "number"

  def another_width(columns, rng):
    row = int(rng.integers(1, ROWS))
    columns["vector"][row] = [1.0] * int(rng.choice([1, 2, 4, 9]))
    return row, "vector"

  def another_width_inside(columns, rng):
    row = int(rng.integers(1, ROWS))
    columns["vectors"][0] = [[1.0, 2.0]]
    columns["vectors"][row] = [[1.0, 2.0], [1.0]]
    return row, "vectors"

  def the_same_id(columns, rng):
    first, second = sorted(rng.choice(ROWS, 2, replace=False).tolist())
    columns["id"][second] = columns["id"][first]
    return second, "id"

  def no_id(columns, rng):
    row = int(rng.integers(ROWS))
    columns["id"][row] = None
    return row, "id"

  def no_label(columns, rng):
    row = int(rng.integers(ROWS))
    columns["label"][row] = None
    return row, "label"

  def one_label(columns, rng):
    columns["label"] = ["yes"] * ROWS
    return None, "label"

  def no_such_part(columns, rng):
    row = int(rng.integers(ROWS))
    columns["split"][row] = "tarin"
    return row, "split"

  def no_training_part(columns, rng):
    columns["split"] = ["test"] * ROWS
    return None, "split"

  def a_column_is_gone(columns, rng):
    name = str(rng.choice(list(columns)))
    del columns[name]
    return None, name

  def numbers_for_words(columns, rng):
    columns["text"] = [1.5 + i for i in range(ROWS)]
    return None, "text"

  def words_for_numbers(columns, rng):
    name = str(rng.choice(["number", "numbers", "vector"]))
    word = "many" if name == "number" else ["many"]
    columns[name] = [word] * ROWS
    return None, name

  def scalars_for_lists(columns, rng):
    name = str(rng.choice(["numbers", "vector", "vectors"]))
    columns[name] = [1.0] * ROWS
    return None, name

  def all_null(columns, rng):
    name = str(rng.choice(list(SPEC["modalities"])))
    columns[name] = [None] * ROWS
    return None, name

  def strange_words(columns, rng):
    strange = ["\u0000", "\ud7ff", "🙂" * 50, " ", "\n\t", '"', ",;|", "<unknown>", "é"]
    for row in range(ROWS):
      columns["text"][row] = " ".join(rng.choice(strange, 3))
      columns["category"][row] = str(rng.choice([s for s in strange if s != "\u0000"]))

  def numbers_that_are_whole(columns, rng):
    columns["number"] = rng.integers(-9, 9, ROWS).tolist()
    columns["category"] = [i % 3 for i in range(ROWS)]

  def many_columns(columns, rng):
    for number in range(50):
      columns[f"more {number}"] = [number] * ROWS


HARMLESS = [
  "nulls",
  "nulls_inside",
  "empty",
  "huge",
  "not_a_number",
  "words_for_missing",
  "spaces_around",
  "strange_words",
  "numbers_that_are_whole",
  "many_columns",
]
WAYS = {k: v for k, v in vars(Break).items() if not k.startswith("_")}


def _parquet(columns, path, rng):
  size = int(rng.choice([1, 3, ROWS]))
  pq.write_table(pa.table(columns), path, row_group_size=size)


def _arrow(columns, path, rng):
  pyarrow.feather.write_feather(
    pa.table(columns), path, chunksize=int(rng.choice([1, 5]))
  )


def _jsonl(columns, path, rng):
  names = list(columns)
  rows = zip(*columns.values(), strict=True)
  lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
  path.write_text("\n".join(lines) + "\n" * int(rng.integers(0, 2)))


def _csv(columns, path, rng):
  def cell(value):
    if value is None:
      return ""
    if not isinstance(value, list):
      return value
    # As JSON, or as Python writes a list, which has no word for NaN.
    is_python = rng.random() < 0.5 and not re.search("nan|inf", repr(value))
    return repr(value) if is_python else json.dumps(value)

  with path.open("w", newline="") as file:
    writer = csv.writer(file, lineterminator=str(rng.choice(["\n", "\r\n"])))
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
      writer.writerow([cell(value) for value in row])


WRITERS = {".parquet": _parquet, ".arrow": _arrow, ".jsonl": _jsonl, ".csv": _csv}


def damaged(path, rng):
  """Cuts the file, or changes some bytes of it; returns how."""
  content = bytearray(path.read_bytes())
  how = rng.choice(["cut", "bytes", "latin", "utf16", "empty"])
  if how == "cut":
    content = content[: int(rng.integers(1, len(content)))]
  elif how == "bytes":
    for place in rng.integers(0, len(content), 5):
      content[place] = int(rng.integers(0, 256))
  elif how == "latin":
    content = bytearray(bytes(content).replace(b"one", b"\xe9\xe8n"))
  elif how == "utf16" and path.suffix in (".csv", ".jsonl"):
    content = bytearray(bytes(content).decode().encode("utf-16"))
  else:
    content = bytearray()
  path.write_bytes(bytes(content))


def absent(value):
  return value in (None, "") or (isinstance(value, float) and math.isnan(value))


def expected(kind, cell):
  """The elements that a cell has, by a loop: numbers, or strings."""
  if isinstance(cell, str):
    cell = cell.strip()  # White space around a cell is not part of it.
    cell = None if kind == "number" else cell  # A word for missing.
  if absent(cell):
    return []
  match kind:
    case "number" | "category":
      return [cell]
    case "vector":
      return [cell] if cell else []
    case "text":
      text = str(cell).lower()  # Numbers of a CSV file are read as the text they are.
      return [w for w in re.split(r"[^\w]|_", text) if w]
  return [element for element in cell if not absent(element)]


def check(tables, encoding, columns):
  """Compares every cell of the tables with the columns that were written."""
  rows = {str(name): row for row, name in enumerate(columns["id"])}
  assert sum(len(t) for t in tables.values()) == ROWS
  for part, table in tables.items():
    table.validate(part)
    for index, name in enumerate(table.ids.tolist()):
      row = rows[name]
      assert columns["split"][row] == part
      label = encoding.label_encoder.names[table.targets[index]]
      assert label == columns["label"][row]
      for modality, kind in encoding.spec.modalities.items():
        ragged = table.modalities[modality]
        begin, end = ragged.offsets[index : index + 2]
        found, want = (
          ragged.values[begin:end],
          expected(kind.kind, columns[modality][row]),
        )
        if kind.kind in ("number", "numbers", "vector", "vectors"):
          want = np.array(want, np.float32).reshape(found.shape)
          np.testing.assert_allclose(found, want, rtol=1e-6)
          continue
        words = encoding.fitted[modality].words
        known = [str(w) if str(w) in words else None for w in want]
        if kind.unknown == "left_out":
          known = [w for w in known if w is not None]
        got = [words[i] if i or words[0] != "<unknown>" else None for i in found]
        wanted = [None if w == "<unknown>" else w for w in known]
        assert [None if w == "<unknown>" else w for w in got] == wanted


def outcome(path, folder, monkeypatch, columns, whole):
  """What comes of a file: "table", or the message of an error."""
  monkeypatch.setenv("DEEPSETS_JAX_CACHE", str(folder / "cache"))
  of_spec = spec.from_json(SPEC, "spec")
  try:
    tables = build.tables(str(path), of_spec, 0, lambda line: None)
  except DataError as error:
    return str(error)
  if whole:
    check(tables, build.encoding_of(str(path), of_spec, 0), columns)
  return "table"


def described(path):
  """What comes of a proposal: "table", or the message of an error."""
  try:
    source = opening.open_source(str(path))
    proposal.propose(profiling.profile_columns(source), str(path), label="label")
  except DataError as error:
    return str(error)
  return "table"


def one(seed, folder, monkeypatch):
  """Makes and reads one broken table; returns what came of it, and of what."""
  rng = np.random.default_rng(seed)
  columns = good(rng)
  among = list(WAYS) if rng.random() < 0.7 else HARMLESS
  ways = rng.choice(among, int(rng.integers(1, 4)), replace=False).tolist()
  suffix = str(rng.choice(list(WRITERS)))
  path = folder / f"table{suffix}"
  named = [WAYS[way](columns, rng) for way in ways if way_fits(way, columns)]
  try:
    WRITERS[suffix](columns, path, rng)
  except (pa.ArrowException, UnicodeError, OverflowError):
    return None  # Arrow cannot hold it at all.
  whole = rng.random() < 0.8
  if not whole:
    damaged(path, rng)
  message = outcome(path, folder, monkeypatch, columns, whole)
  proposed = described(path)
  path.unlink()
  for text in (message, proposed):
    assert text == "table" or path.name in text, (seed, ways, suffix, text)
    assert text == "table" or len(text) > len(str(path)) + 20
  legal = suffix == ".csv" and "numbers_for_words" in ways
  if whole and len(ways) == 1 and named and named[0] is not None and not legal:
    row, column = named[0]
    assert message != "table", (seed, ways, suffix)
    assert repr(column) in message, (seed, ways, suffix, message)
    assert row is None or f"row {row}" in message, (seed, ways, suffix, message)
  return "table" if message == "table" else "error"


def way_fits(way, columns):
  """A way that breaks a column again has to find it as it was."""
  lists = {"nulls_inside": ("numbers", "tokens", "vectors")}
  return all(
    n in columns and all(isinstance(c, list) for c in columns[n])
    for n in lists.get(way, ())
  ) and set(good(np.random.default_rng(0))) <= set(columns)


def run(seeds, folder, monkeypatch):
  counts = collections.Counter(one(seed, folder, monkeypatch) for seed in seeds)
  assert counts["table"] > 0.1 * len(seeds) and counts["error"] > 0.3 * len(seeds)
  return counts


def test_a_broken_table_is_right_or_an_error_to_act_on(tmp_path, monkeypatch):
  run(range(150), tmp_path, monkeypatch)


@pytest.mark.slow
def test_thousands_of_broken_tables(tmp_path, monkeypatch):
  run(range(1000, 3500), tmp_path, monkeypatch)
