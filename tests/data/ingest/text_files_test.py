"""CSV and JSON lines: types told from all rows, and bad text named with its place."""

import contextlib
import csv
import datetime
import gzip
import io
import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest

from deepsets_jax.data.ingest.files import csv_files, opening
from deepsets_jax.foundation.errors import DataError

DAY = datetime.datetime(2020, 1, 2)
WANTED = pa.schema(
  {
    "a": pa.int64(),
    "b": pa.list_(pa.float32(), 2),
    "c": pa.float32(),
    "d": pa.timestamp("us"),
    "e": pa.date32(),
    "k": pa.int8(),
  }
)


def write(tmp_path, name, content):
  path = tmp_path / name
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  return path


def read(path, schema=None):
  opened = opening.open_source(path, schema=schema)
  return pa.Table.from_batches(opened.batches(), opened.schema)


def check_error(path, match, schema=None):
  with pytest.raises(DataError, match=match) as caught:
    read(path, schema)
  assert path.name in str(caught.value)
  assert "; " in str(caught.value), "no way out"


class TestCsvTypes:
  @pytest.mark.parametrize(
    "cells, kind, values",
    [
      (["1", "", "-3", "0"], pa.int64(), [1, None, -3, 0]),
      (["1", "2.5", "-1e3", ".5"], pa.float64(), [1.0, 2.5, -1000.0, 0.5]),
      (["inf", "-Infinity"], pa.float64(), [np.inf, -np.inf]),
      (["true", "False", "TRUE"], pa.bool_(), [True, False, True]),
      (["true", "1"], pa.string(), ["true", "1"]),
      (["2020-01-02"], pa.date32(), [DAY.date()]),
      (["2020-01-02", "2020-01-02T00:00"], pa.timestamp("us"), [DAY, DAY]),
      (
        ["2020-01-02T00:00:00Z", "2020-01-02 02:00+02:00"],
        pa.timestamp("us", "UTC"),
        [DAY.replace(tzinfo=datetime.UTC)] * 2,
      ),
      (["2020-01-02", "soon"], pa.string(), ["2020-01-02", "soon"]),
      (["2020-13-02"], pa.string(), ["2020-13-02"]),
      (["", " "], pa.null(), [None, None]),
      # Names made of digits stay as they are.
      (["007", "1"], pa.string(), ["007", "1"]),
      (["12345678901234567890", "1"], pa.string(), ["12345678901234567890", "1"]),
      (["1e400", "1"], pa.string(), ["1e400", "1"]),
      (["0x1F", "1"], pa.string(), ["0x1F", "1"]),
      ([" 1", "2 "], pa.int64(), [1, 2]),
      (["[1, 2]", "", "[]"], pa.list_(pa.int64()), [[1, 2], None, []]),
      (['["a", null]', "[]"], pa.list_(pa.string()), [["a", None], []]),
      (["[[1, 2.5], []]"], pa.list_(pa.list_(pa.float64())), [[[1.0, 2.5], []]]),
      (["[1,\n 2]"], pa.list_(pa.int64()), [[1, 2]]),
      (["[1]", "[deleted]"], pa.string(), ["[1]", "[deleted]"]),
      (["[1]", '["a"]'], pa.string(), ["[1]", '["a"]']),
      (["['a', 'b']"], pa.list_(pa.string()), [["a", "b"]]),
      (['["a\nb"]'], pa.string(), ['["a\nb"]']),
      (['[1]}\n{"v":[2]', "[1]"], pa.string(), ['[1]}\n{"v":[2]', "[1]"]),
      (['[1], "w": [2]', "[1]"], pa.string(), ['[1], "w": [2]', "[1]"]),
      (["[12345678901234567890]"], pa.string(), ["[12345678901234567890]"]),
    ],
  )
  def test_are_what_all_cells_are_written_as(self, tmp_path, cells, kind, values):
    lines = ['"' + cell.replace('"', '""') + '",x' for cell in cells]
    path = write(tmp_path, "a.csv", "\n".join(["a,b", *lines]))
    got = read(path)
    assert got.schema.field("a").type == kind
    assert got["a"].to_pylist() == values

  def test_nan_is_a_number(self, tmp_path):
    got = read(write(tmp_path, "a.csv", "a,b\nnan,1\n0.5,2\n"))
    np.testing.assert_array_equal(got["a"].to_numpy(), [np.nan, 0.5])

  @pytest.mark.parametrize(
    "name, content",
    {
      "a.csv": b'a,b\n1,x y\n,""\n',
      "b.csv": b"\xef\xbb\xbfa,b\r\n1,x y\r\n,\r\n",
      "c.csv": b'a,b\n"1","x y"\n\n,',
      "d.tsv": b"a\tb\n1\tx y\n\t\n",
      "e.csv.gz": gzip.compress(b"a,b\n1,x y\n", mtime=0)
      + gzip.compress(b",\n", mtime=0),
      "f.csv.zst": pa.Codec("zstd").compress(b"a,b\n1,x y\n,\n", asbytes=True),
      "g.csv": b"sep=;\r\na;b\r\n1;x y\r\n;\r\n",
      "h.csv": b"\n\na|b\n1|x y\n|\n",
      "i.csv": b" a , b\n 1 , x y \n , \n",
    }.items(),
  )
  def test_do_not_depend_on_how_the_file_is_written(self, tmp_path, name, content):
    got = read(write(tmp_path, name, content))
    assert got.to_pydict() == {"a": [1, None], "b": ["x y", None]}

  def test_an_end_of_line_in_a_cell_is_kept(self, tmp_path):
    got = read(write(tmp_path, "a.csv", 'a,b\n1,"x\r\ny"\r\n2,"\r\n"\r\n'))
    assert got.to_pydict() == {"a": [1, 2], "b": ["x\r\ny", None]}

  def test_a_blank_line_is_a_row_of_a_single_column(self, tmp_path):
    assert read(write(tmp_path, "a.csv", "a\n1\n\n3\n")).to_pydict() == {
      "a": [1, None, 3]
    }

  def test_a_quote_within_a_cell_that_is_not_quoted_is_its_own(self, tmp_path):
    got = read(write(tmp_path, "a.csv", 'a,b\n5" disk,"say ""x"""\n'))
    assert got.to_pydict() == {"a": ['5" disk'], "b": ['say "x"']}


@pytest.mark.parametrize(
  "content, match",
  [
    (
      b"a,b\n1,2\n3\n4,5\n",
      r"row 1 \(line 3\): 1 cells, expected 2: '3'; quote a cell",
    ),
    (b'a,b\n"x\ny",2\n\n3,4,5\n', r"row 1 \(line 5\): 3 cells, expected 2: '3,4,5'"),
    (b'a,b\n1,2\n3,"4\n5,6\n7,8\n', r"row 1 \(line 3\): a quoted cell is not closed"),
    (b'a,b\n1,"x""\n', r"row 0 \(line 2\): a quoted cell is not closed"),
    (
      b'a,b\n1,2\n"q"r,4\n',
      r"row 1 \(line 3\): a quoted cell is not closed, or not at",
    ),
    (
      b'a,b\n1,"2\n3,4\n5,"6\n7,8\n',
      r"row 0 \(line 2\): a quoted cell is not closed, or not at",
    ),
    (
      b'a,"b"x\n1,2\n',
      r"has no header, or a quoted cell of it is not closed",
    ),
    (b"a,b,a\n1,2,3\n", r"columns 0 and 2 are both 'a'; rename one"),
    (b"a,b\n", r"no rows"),
    (b"a,b", r"no rows"),
    (b"\n\n", r"has no header|no name"),
    (b'{"a": 1, "b": 2}\n', r"is JSON lines by what it holds, and CSV by its name"),
    (
      b"a,b\n1,2\n3,caf\xe9\n",
      r"row 1 \(line 3\), column 'b': b'caf\\xe9' is not UTF-8",
    ),
    (
      b"caf\xe9,b\n1,2\n",
      r"column 0: the name b'caf\\xe9' is not UTF-8; convert the file",
    ),
    (b"a,b\n1,2\0\n", r"has a NUL byte, .*; convert it from UTF-16"),
    ("a,b\n1,2\n".encode("utf-16"), r"is UTF-16, expected UTF-8; convert it: iconv"),
    ("a,b\n1,2\n".encode("utf-32"), r"is UTF-32, expected UTF-8"),
    ("a,b\n1,2\n".encode("utf-16-le"), r"has a NUL byte"),
  ],
)
def test_bad_csv_is_named_with_its_place(tmp_path, content, match):
  check_error(write(tmp_path, "a.csv", content), match)


def test_a_row_that_never_ends_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr(csv_files, "LONGEST_ROW", 512)
  rows = b"1,2\n" * 2000
  path = write(tmp_path, "a.csv", b'a,b\n1,2\n1,"2\n' + rows)
  check_error(path, r"line 3.*close its quotes|not closed")
  path = write(tmp_path, "a.jsonl", b'{"a": 1}\n{"a": "' + b"x" * 1000)
  check_error(path, r"row 1 \(line 2\): .* is not one JSON object")


def test_a_long_cell_is_read_and_one_that_is_too_long_is_named(tmp_path):
  text = f'a,b\n1,"{"x" * 3_000_000}"\n2,y\n'
  assert read(write(tmp_path, "a.csv", text))["b"].to_pylist()[1] == "y"
  path = write(tmp_path, "b.csv", text.replace("x" * 9, "x" * 18))
  check_error(path, r"a row is longer than 4,194,304 bytes; close its quotes")


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_damaged_gzip_is_named(tmp_path, name):
  text = b"a,b\n1,2\n" * 1000 if "csv" in name else b'{"a": 1}\n' * 1000
  packed = gzip.compress(text)
  for content in (packed[:-9], packed[:20], packed + b"junk"):
    check_error(write(tmp_path, name, content), "truncated or damaged, write it again")
  check_error(write(tmp_path, name, text), "not packed by gzip by what it holds")


class TestJsonTypes:
  @pytest.mark.parametrize(
    "values, kind",
    [
      ([None, 1, 2], pa.int64()),
      ([1, 2.5, None], pa.float64()),
      ([None, None], pa.null()),
      (["2020-01-02", "2020-01-02"], pa.date32()),
      (["2020-01-02", "soon"], pa.string()),
      ([[], [None], [1]], pa.list_(pa.int64())),
      ([[1], [2.5]], pa.list_(pa.float64())),
      ([[["x"]], [[], None]], pa.list_(pa.list_(pa.string()))),
      ([[{"m": 1}], [{"n": "x"}]], pa.list_(pa.struct({"m": "int64", "n": "string"}))),
    ],
  )
  def test_are_one_for_the_whole_file(self, tmp_path, values, kind):
    lines = "\r\n".join(json.dumps({"a": value}) for value in values)
    got = read(write(tmp_path, "a.jsonl", "\ufeff" + lines))
    assert got.schema.field("a").type == kind
    if kind == pa.date32():
      values = [DAY.date()] * len(values)
    if pa.types.is_struct(kind.value_type if pa.types.is_list(kind) else kind):
      values = [[{"m": 1, "n": None}], [{"m": None, "n": "x"}]]
    assert got["a"].to_pylist() == values

  def test_keys_that_come_late_or_not_are_null(self, tmp_path):
    path = write(tmp_path, "a.jsonl", '{"a": 1}\n\n{}\n{"b": {"x": "y"}}')
    got = read(path)
    assert got.to_pydict() == {"a": [1, None, None], "b.x": [None, None, "y"]}

  def test_nan_and_infinity_are_numbers(self, tmp_path):
    got = read(write(tmp_path, "a.jsonl", '{"a": NaN}\n{"a": -Infinity}\n{"a": 1}\n'))
    np.testing.assert_array_equal(got["a"].to_numpy(), [np.nan, -np.inf, 1])

  def test_large_floats_of_an_array_of_objects_are_read(self, tmp_path):
    got = read(write(tmp_path, "a.json", '[{"a": 1e300, "b": "12:30"}, {"a": 2.5}]'))
    assert got.to_pydict() == {"a": [1e300, 2.5], "b": ["12:30:00", None]}

  def test_long_digits_in_a_string_are_its_own(self, tmp_path):
    path = write(tmp_path, "a.jsonl", '{"a": "1, 12345678901234567890", "b": 0.5}\n')
    assert read(path)["a"].to_pylist() == ["1, 12345678901234567890"]


DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
  "line, match",
  [
    (b'{"a": [1]}', r"column 'a': lists or objects and other values.*array 1, ub"),
    (b'{"a": {"q": 1}}', r"column 'a': lists or objects and other values.*object 1"),
    (b'{"l": [null, [1]]}', r"column 'l': lists or objects and other values.*array 1"),
    (
      b'{"a": ',
      r"""'\{"a":' is not one JSON object \(.*\); write one object a line""",
    ),
    (b'{"a": 1},', r"is not one JSON object \(Extra data\)"),
    (b'{"a": 1}{"a": 2}', r"is not one JSON object \(Extra data\)"),
    (b"{'a': 1}", r"is not one JSON object"),
    (b'{"a": 01}', r"is not one JSON object"),
    (b"5", r"'5' is not an object; write one a line"),
    (b"[1]", r"is not an object"),
    (b'{"a": 1, "a": 2}', r"key 'a' is there twice; leave one out"),
    (b'{"o": {"z": 1, "z": 1}}', r"key 'z' is there twice"),
    (b'{"a": 12345678901234567890}', r"'12345678901234567890' does not fit in an int"),
    (b'{"a": %s}' % (b"1" * 5000), r"'1111.* does not fit in an integer of 64 bits"),
    (b'{"t": "caf\xe9"}', r"is not UTF-8 .*; convert the file"),
    (b'{"t": "\\ud800"}', r"is not UTF-8 .*surrogates"),
    (DEEP, r"nested too deep; flatten them"),
    (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, r"nested too deep; flatten them"),
  ],
)
def test_a_bad_line_of_json_is_named(tmp_path, line, match):
  good = b'{"a": 1, "l": [1], "o": {"p": [{"q": 1}]}, "f": 0.5, "t": "x"}\n'
  path = write(tmp_path, "a.jsonl", good + b"\n" + good + line + b"\n" + good)
  check_error(path, rf"row 2( \(line 4\))?.*{match}")


@pytest.mark.parametrize(
  "content, match",
  [
    (b'{\n"a": 1\n}\n', r"row 0 \(line 1\): '\{' is not one JSON object"),
    (b"{}\n{}\n", r"has no columns; write one"),
    (b'[{"a": 1},\n{"a": [1]}]', r"column 'a': lists or objects and other values"),
    (b'[{"a": 12345678901234567890}]', r"'12345678901234567890' does not fit in an"),
    (b'{"": 1}\n', r"a key is empty; name it"),
    (
      b'{"o": {"x": 1}, "o.x": 2}\n',
      r"two columns are 'o\.x', one of them within a struct",
    ),
    (b"a,b\n1,2\n", r"row 0 \(line 1\): 'a,b' is not one JSON object"),
    (b"\n\n", r"has no columns"),
    ('{"a": 1}\n'.encode("utf-16"), r"is UTF-16, expected UTF-8"),
    (b'{"a": "\0"}\n', r"has a NUL byte"),
    (b"PAR1", r"is Parquet by what it holds, and JSON lines by its name"),
  ],
)
def test_a_file_that_is_no_json_lines_is_named(tmp_path, content, match):
  check_error(write(tmp_path, "a.json", content), match)


class TestWantedTypes:
  CSV = 'c,b,more,a,k,d,e\n1.5,"[1, 2]",x,7,3,2020-01-02,2020-01-02\n,,,,,,\n'
  JSONL = (
    '{"c": 1.5, "b": [1, 2], "more": "x", "a": 7, "k": 3, "d": "2020-01-02", "e":'
    ' "2020-01-02"}\n{}\n'
  )

  @pytest.mark.parametrize("name, content", {"a.csv": CSV, "a.jsonl": JSONL}.items())
  def test_are_those_that_columns_have(self, tmp_path, name, content):
    path = write(tmp_path, name, content)
    opened = opening.open_source(path, schema=WANTED)
    assert opened.schema.field("more").type == pa.string()
    first, second = read(path, WANTED).to_pylist()
    assert first == {
      "a": 7,
      "b": [1.0, 2.0],
      "c": 1.5,
      "d": DAY,
      "e": DAY.date(),
      "k": 3,
      "more": "x",
    }
    assert set(second.values()) == {None}

  def test_columns_may_be_missing(self, tmp_path):
    path = write(tmp_path, "a.csv", "c\n1.5\n")
    assert read(path, WANTED).schema == pa.schema({"c": pa.float32()})
    path = write(tmp_path, "a.jsonl", '{"c": 1.5}\n')
    assert read(path, WANTED).schema == pa.schema({"c": pa.float32()})

  def test_within_objects_are_found_by_their_path(self, tmp_path):
    wanted = pa.schema({"o.x": pa.float64(), "p.q": pa.string(), "r.s": pa.int64()})
    path = write(tmp_path, "a.jsonl", '{"o": {"x": 1}, "r.s": 2}\n{"p": {"q": "y"}}\n')
    assert read(path, wanted).to_pylist() == [
      {"o.x": 1.0, "p.q": None, "r.s": 2},
      {"o.x": None, "p.q": "y", "r.s": None},
    ]

  @pytest.mark.parametrize(
    "name, content, match",
    [
      (
        "a.csv",
        "a,z\n1,\n\n5.5,\n",
        r"row 1 \(line 4\), column 'a': '5\.5' cannot be read as integer",
      ),
      (
        "a.csv",
        "k,z\n1,\n300,\n",
        r"row 1 \(line 3\), column 'k': '300' cannot be read as integer",
      ),
      (
        "a.csv",
        'b,z\n"[1,2]",\n"[1]",\n',
        r"row 1 \(line 3\), column 'b': '\[1\]' cannot be read",
      ),
      ("a.csv", "e,z\n2020-02-30,\n", r"row 0 \(line 2\), column 'e': '2020-02-30'"),
      (
        "a.jsonl",
        '{"a": 1}\n\n{"a": 1.5}\n',
        r"row 1 \(line 3\), column 'a': 1\.5 cannot be read as int64",
      ),
      (
        "a.jsonl",
        '{"a": "x"}\n',
        r"row 0 \(line 1\), column 'a': 'x' cannot be read as integer",
      ),
      (
        "a.jsonl",
        '{"k": 1}\n{"k": 300}',
        r"row 1 \(line 2\), column 'k': 300 cannot be read as int8",
      ),
      (
        "a.jsonl",
        '{"b": [1]}',
        r"row 0 \(line 1\), column 'b': \[1\] cannot be read as fixed_size",
      ),
      (
        "a.jsonl",
        '{"d": "soon"}',
        r"row 0 \(line 1\), column 'd': 'soon' cannot be read as time",
      ),
    ],
  )
  def test_name_the_value_that_does_not_fit(self, tmp_path, name, content, match):
    check_error(write(tmp_path, name, content), match, WANTED)

  @pytest.mark.parametrize(
    "name, content", {"a.csv": "p\n1\n", "a.json": '{"p": 1}'}.items()
  )
  def test_that_text_cannot_have_are_refused(self, tmp_path, name, content):
    wanted = pa.schema({"p": pa.binary()})
    path = write(tmp_path, name, content)
    check_error(path, "column 'p': type .*, expected binary; write the column", wanted)

  def test_a_changed_type_after_the_first_block_is_named(self, tmp_path):
    path = write(tmp_path, "a.jsonl", '{"a": 1}\n{"a": 2}\n\n{"a": "x"}\n')
    check_error(
      path, r"row 2 \(line 4\), column 'a': 'x' cannot be read as integer", WANTED
    )


@hypothesis.given(
  rows=st.lists(
    st.lists(st.text(alphabet='a",\n\r', max_size=4), min_size=2, max_size=2),
    min_size=1,
  )
)
@hypothesis.settings(max_examples=200)
def test_random_csv_is_read_as_python_reads_it(tmp_path_factory, rows):
  """Cells that nobody quoted: read as by a strict parser, or refused where it does."""
  path = tmp_path_factory.mktemp("random") / "a.csv"
  text = "\n".join(["p,q", *map(",".join, rows)])
  path.write_bytes(text.encode())
  try:
    parsed = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    wanted = [[cell.strip() or None for cell in row] for row in parsed[1:] if row]
    # Empty cells more, as after a separator at the end of a line, are none.
    wanted = [row[:2] if not any(row[2:]) else row for row in wanted]
    good = bool(wanted) and all(len(row) == 2 for row in wanted)
  except csv.Error:
    good = False
  if good and "\r" in text:
    # Ends of lines of several kinds may be refused, and are never read wrongly.
    with contextlib.suppress(DataError):
      assert [[*row.values()] for row in read(path).to_pylist()] == wanted
  elif good:
    assert [[*row.values()] for row in read(path).to_pylist()] == wanted
  else:
    with pytest.raises(DataError, match=r"a\.csv"):
      read(path)
