"""How cells are written: formats found from all cells, and the value of each cell."""

import datetime

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest

from deepsets_jax.data.ingest.files import formats
from deepsets_jax.data.ingest.files.detection import Detector
from deepsets_jax.data.ingest.files.formats import Format


def found(cells, *, is_label=False, decimal_comma=False, size=None):
  """The format of some cells, seen a few at a time, and the sentence about it."""
  detector = Detector(is_label=is_label)
  for begin in range(0, len(cells), size or len(cells)):
    detector.add(pa.array(cells[begin : begin + (size or len(cells))], pa.string()))
  return detector.found(decimal_comma=decimal_comma)


def values(form, cells):
  return form.convert(pa.array(cells, pa.string())).to_pylist()


def day(year, month, day):
  return datetime.date(year, month, day)


UTC = datetime.UTC
CASES = [
  (["1", " -3 ", ""], "integer", [1, -3, None]),
  (["1", "2.5", "-1e3", ".5"], "number", [1.0, 2.5, -1000.0, 0.5]),
  (["12", "NA", "?", "n/a"], "integer", [12, None, None, None]),
  (["0.5", "nan", "-", "null"], "number", [0.5, None, None, None]),
  (["$371,587", "($14)", "$2.5"], "number", [371587.0, -14.0, 2.5]),
  (["€ 3.50", "4.20 EUR"], "number", [3.5, 4.2]),
  (["49.1%", "3 %"], "number", [49.1, 3.0]),
  (["1,360", "2,090,500"], "number", [1360.0, 2090500.0]),
  (["6,47", "1.234,5", "12"], "number", [6.47, 1234.5, 12.0]),
  (["12 345,67", "1\u202f000,5"], "number", [12345.67, 1000.5]),
  (["1'234.5", "7"], "number", [1234.5, 7.0]),
  (["\u22125", "5"], "number", [-5.0, 5.0]),
  (["True", "false", "NA"], "boolean", [True, False, None]),
  (["yes", "No", "YES "], "boolean", [True, False, True]),
  (["2004-02-13", "2010-6-2"], "date", [day(2004, 2, 13), day(2010, 6, 2)]),
  (["2010-06", "2011-12"], "date", [day(2010, 6, 1), day(2011, 12, 1)]),
  (["Jun 2010", "December 2011"], "date", [day(2010, 6, 1), day(2011, 12, 1)]),
  (["02/13/2004", "06/02/2010"], "date", [day(2004, 2, 13), day(2010, 6, 2)]),
  (["13.02.2004", "02.06.2010"], "date", [day(2004, 2, 13), day(2010, 6, 2)]),
  (["31-12-99", "1-2-05"], "date", [day(1999, 12, 31), day(2005, 2, 1)]),
  (["3 October 2018", "Oct 4, 2018"], "date", [day(2018, 10, 3), day(2018, 10, 4)]),
  (
    ["1/2/2020 3:04 PM", "1/14/2020 12:04 AM"],
    "time",
    [datetime.datetime(2020, 1, 2, 15, 4), datetime.datetime(2020, 1, 14, 0, 4)],
  ),
  (
    ["2020-01-01T10:00:00Z", "2020-01-01 10:00:00.5+02:00", "2020-01-01 07:00 UTC"],
    "time with zone",
    [
      datetime.datetime(2020, 1, 1, 10, tzinfo=UTC),
      datetime.datetime(2020, 1, 1, 8, 0, 0, 500000, tzinfo=UTC),
      datetime.datetime(2020, 1, 1, 7, tzinfo=UTC),
    ],
  ),
  (
    ["Wed Oct 10 20:19:24 +0000 2018", "Thu, 11 Oct 2018 01:00:00 GMT"],
    "time with zone",
    [
      datetime.datetime(2018, 10, 10, 20, 19, 24, tzinfo=UTC),
      datetime.datetime(2018, 10, 11, 1, tzinfo=UTC),
    ],
  ),
  (["['a', 'b']", "[]", '["c"]'], "list of texts", [["a", "b"], [], ["c"]]),
  (["('a', 'b')", "{'c'}"], "list of texts", [["a", "b"], ["c"]]),
  (["[1, 2]", "", "[null]"], "list of integers", [[1, 2], None, [None]]),
  (["[null, null]"], "list of texts", [[None, None]]),
  (["[[0.5], []]", "[null]"], "list of lists of numbers", [[[0.5], []], [None]]),
  (["[1, 2.5]", "[]"], "list of numbers", [[1.0, 2.5], []]),
  (
    ["[ 0.5 -1.\n  2e-3]", "[1. 2. 3.]"],
    "list of numbers",
    [[0.5, -1, 2e-3], [1, 2, 3]],
  ),
  (["[[1 2]\n [3 4]]"], "list of lists of numbers", [[[1.0, 2.0], [3.0, 4.0]]]),
  (["0.1 0.2", "1 -2"], "list of numbers", [[0.1, 0.2], [1.0, -2.0]]),
  (["0.1;0.2;5"], "list of numbers", [[0.1, 0.2, 5.0]]),
  (["1,2,3,4", "5,6,7,8"], "text", ["1,2,3,4", "5,6,7,8"]),
  # Names made of digits stay as they are, and so do words that look like dates.
  (["007", "1"], "text", ["007", "1"]),
  (["12345678901234567890", "1"], "text", ["12345678901234567890", "1"]),
  (["1e400", "1"], "text", ["1e400", "1"]),
  (["0x1F", "1"], "text", ["0x1F", "1"]),
  (["2020-13-02", "2020-01-01"], "text", ["2020-13-02", "2020-01-01"]),
  (["2023-02-29"], "text", ["2023-02-29"]),
  (["[1]", "[deleted]"], "text", ["[1]", "[deleted]"]),
  (["[1]", '["a"]'], "text", ["[1]", '["a"]']),
  (["a word?", "NA"], "text", ["a word?", "NA"]),
  (["192.168.1.1", "10.0.0.1"], "text", ["192.168.1.1", "10.0.0.1"]),
  (["1.2.3", "2.0.1"], "text", ["1.2.3", "2.0.1"]),
  (["", " "], "text", [None, None]),
]


@pytest.mark.parametrize("size", [1, None])
@pytest.mark.parametrize("cells, kind, wanted", CASES)
def test_a_column_is_what_all_its_cells_are_written_as(cells, kind, wanted, size):
  form, _ = found(cells, size=size)
  assert form.type == kind
  np.testing.assert_equal(values(form, cells), wanted)
  assert formats.from_json(formats.to_json({"a.b": form})) == {"a.b": form}


@pytest.mark.parametrize(
  "cells, sentence",
  [
    (["1"] * 91 + ["NA"] * 6 + ["?"] * 3, "91% are numbers; the others are 'NA' (6), "),
    (["1"] * 99 + ["many"], "99% are numbers; the others are 'many' (1): read as text"),
    (["$3", "$1,000"], "numbers with '$', with ',' between thousands, as in '$3'"),
    (["1,5", "2,25"], "numbers with a decimal comma, as in '1,5'"),
    (
      ["1,360", "2,090"],
      "the comma could mark thousands or decimals, it is read as th",
    ),
    (["13/02/2004"], "dates, day first, as in '13/02/2004'"),
    (["03/02/2004"], "say which with --dates=dmy or --dates=mdy"),
    (["0.5 1.5"], "lists of 2 numbers with spaces between them, as in '0.5 1.5'"),
    (["a", "b", "?"] * 4, "'?' (4) read as missing"),
    (["[0.1 0.2 ... 0.3]"], "lists that numpy has cut short"),
    (["1", "2"], ""),
  ],
)
def test_what_is_not_obvious_is_said(cells, sentence):
  said = found(cells)[1]
  assert sentence in said and bool(sentence) == bool(said)


def test_words_for_missing_are_ordinary_values_of_a_text():
  countries = ["NA", "DE", "none", "US"] * 5
  assert values(found(countries)[0], countries) == countries
  texts = ["what is this ?", "?", "null and void", "null"]
  assert values(found(texts)[0], texts) == texts
  categories = ["a", "?", "b", "null"] * 5
  assert values(found(categories)[0], categories) == ["a", None, "b", None] * 5


def test_the_words_of_a_label_are_kept():
  form, _ = found(["yes", "No "], is_label=True)
  assert values(form, ["yes", "No "]) == ["yes", "No"]
  assert found(["True", "False"], is_label=True)[0].type == "boolean"


def test_other_columns_decide_what_a_comma_is():
  cells = ["1,234", "5,678"]
  assert values(found(cells)[0], cells) == [1234.0, 5678.0]
  assert values(found(cells, decimal_comma=True)[0], cells) == [1.234, 5.678]
  points = ["1.234", "5.678"]
  assert values(found(points)[0], points) == [1.234, 5.678]
  assert values(found(points, decimal_comma=True)[0], points) == [1234.0, 5678.0]


def test_dates_in_two_orders_are_read_as_told():
  detector = Detector()
  detector.add(pa.array(["03/02/2004", "04/05/2006"]))
  assert detector.is_ambiguous_date and detector.found()[0].type == "text"
  for order, wanted in (("dmy", day(2004, 2, 3)), ("mdy", day(2004, 3, 2))):
    assert values(detector.found(dates=order)[0], ["03/02/2004"]) == [wanted]


@pytest.mark.parametrize(
  "form, cell",
  [
    (Format("integer"), "1.5"),
    (Format("integer"), "99999999999999999999"),
    (Format("number"), "abc"),
    (Format("number"), "1e400"),
    (Format("number", thousands=","), "1,2345"),
    (Format("number", decimal=",", thousands="."), "1.5"),
    (Format("boolean"), "2"),
    (Format("date", order="dmy"), "02/13/2004"),
    (Format("list of numbers"), '["a"]'),
    (Format("list of numbers", separator=" "), "0.5 x"),
    (Format("list of texts"), "a|b"),
  ],
)
def test_a_cell_that_is_written_in_another_way_is_an_error(form, cell):
  good = values(form, ["", "NA"])
  assert good == [None, None]
  cells = pa.array(["", cell, None])
  assert not form.fits(cells) and form.first_misfit(cells) == 1
  with pytest.raises(pa.ArrowInvalid):
    form.convert(cells)


@pytest.mark.parametrize(
  "form, cell, value",
  [
    (Format("integer"), "20095.0", 20095),
    (Format("boolean"), "0", False),
    (Format("boolean"), "1.0", True),
    (Format("date"), "2019-11-04 00:00:00", day(2019, 11, 4)),
    (Format("number"), "$1,234.5".replace(",", ""), 1234.5),
    (Format("number", missing=("tbd",)), "TBD", None),
    (Format("text", missing=("?",)), "?", None),
  ],
)
def test_a_cell_is_read_leniently_where_it_is_plain(form, cell, value):
  assert values(form, [cell]) == [value]


@pytest.mark.parametrize(
  "settings, match",
  [
    ({"type": "float"}, r"type 'float': expected one of \['integer'"),
    ({"type": "number", "decimal": ";"}, "decimal ';' with thousands ''"),
    ({"type": "date", "order": "yd"}, "order 'yd': expected one of"),
    ({"type": "text", "kind": "x"}, "'kind': 'x'.*expected an object"),
    ({}, "expected an object with 'column' and 'type'"),
  ],
)
def test_a_setting_that_is_not_legal_is_named(settings, match):
  with pytest.raises(ValueError, match=match):
    formats.from_json([{"column": "a", **settings}])


@hypothesis.given(
  numbers=st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=8),
  thousands=st.sampled_from(["", ",", ".", " "]),
  places=st.integers(0, 3),
  sign=st.sampled_from(["", "$", "%"]),
)
def test_numbers_are_read_as_they_were_written(numbers, thousands, places, sign):
  """Written with marks by a loop, and read back."""
  decimal = "," if thousands == "." else "."
  wanted, cells = [], []
  for number in numbers:
    wanted.append(number / 10**places)
    text = f"{number / 10**places:,.{places}f}"
    swapped = {",": thousands, ".": decimal}
    text = "".join(swapped.get(mark, mark) for mark in text)
    cells.append(f"{text}%" if sign == "%" else f"{sign}{text}")
  form = Format("number", decimal=decimal, thousands=thousands)
  np.testing.assert_allclose(values(form, cells), wanted, rtol=1e-12)
  form, _ = found([*cells, f"1{thousands}234{thousands}567{decimal}5"])
  assert form.type == "number"
  np.testing.assert_allclose(values(form, cells), wanted, rtol=1e-12)


@hypothesis.given(
  moments=st.lists(
    st.datetimes(datetime.datetime(1000, 1, 1), datetime.datetime(2100, 1, 1)),
    min_size=1,
    max_size=8,
  ),
  pattern=st.sampled_from(
    ["%Y-%m-%d %H:%M:%S.%f", "%d.%m.%Y %H:%M", "%m/%d/%Y", "%d %b %Y", "%B %d, %Y"]
  ),
)
def test_dates_are_read_as_they_were_written(moments, pattern):
  """Written by `strftime`, and read back."""
  order = {"%d.": "dmy", "%m/": "mdy"}.get(pattern[:3], "ymd")
  texts = [moment.strftime(pattern) for moment in moments]
  got = values(Format("time", order=order), texts)
  assert got == [datetime.datetime.strptime(text, pattern) for text in texts]
