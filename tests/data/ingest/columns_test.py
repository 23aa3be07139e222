"""Columns of files as modalities, labels and parts, beside plain loops."""

import collections
import io
import itertools
import json
import math
import re
import zlib

import numpy as np
import PIL.Image
import PIL.ImageColor
import pyarrow as pa
import pytest

from deepsets_jax.data.ingest.columns import cells, settings, spec, tfidf
from deepsets_jax.data.ingest.columns.images import ImageColumn, ImageFolder, Unreadable
from deepsets_jax.data.ingest.columns.labels import Label, LabelEncoder
from deepsets_jax.data.ingest.columns.numeric import (
  Scalar,
  ScalarList,
  Vector,
  VectorList,
)
from deepsets_jax.data.ingest.columns.tokens import UNKNOWN, Category, Text, Tokens
from deepsets_jax.foundation.errors import DataError
from deepsets_jax.ragged import from_lists


def lists(ragged):
  """The elements of each example, as lists."""
  pieces = np.split(np.asarray(ragged.values), np.asarray(ragged.offsets)[1:-1])
  return [piece.tolist() for piece in pieces]


def fitted(kind, column):
  fitting = kind.fitting()
  for start in range(0, len(column), 2):  # In parts, as a file comes.
    fitting.add(column[start : start + 2])
  return fitting.result()


class TestNumbers:
  def test_null_and_nan_are_absent_and_the_rest_is_standardised(self):
    column = pa.array([1.0, None, float("nan"), 4.0, 7.0])
    kind = Scalar("x")
    state = fitted(kind, column)
    got = kind.encode(column, state)
    there = np.array([1.0, 4.0, 7.0])
    want = (there - there.mean()) / there.std()
    assert got.lengths.tolist() == [1, 0, 0, 1, 1]
    np.testing.assert_allclose(got.values[:, 0], want, rtol=1e-6)

  def test_lists_of_numbers_lose_their_nulls(self):
    column = pa.array(
      [[1, None, 2], None, [], [float("nan"), 3]], pa.list_(pa.float64())
    )
    kind = ScalarList("x", scale="none")
    got = kind.encode(column, fitted(kind, column))
    assert lists(got) == [[[1.0], [2.0]], [], [], [[3.0]]]

  @pytest.mark.parametrize(
    ("column", "want"),
    [
      (pa.array([True, False, None]), [1.0, 0.0]),
      (pa.array([0, 86_400], pa.timestamp("s")), [0.0, 86_400.0]),
      (pa.array([0, 1500], pa.timestamp("ms", "UTC")), [0.0, 1.5]),
      (pa.array([1, 2], pa.date32()), [86_400.0, 172_800.0]),
      (pa.array([1500], pa.duration("ms")), [1.5]),
      (pa.array([90], pa.time32("s")), [90.0]),
      (pa.array([1.5, 2.25]).cast(pa.decimal128(5, 2)), [1.5, 2.25]),
      (pa.array([2**60]), [2.0**60]),
      (pa.nulls(2), []),
    ],
  )
  def test_what_is_a_number(self, column, want):
    assert cells.is_number(column.type)
    assert cells.numbers(column).values.tolist() == want

  @pytest.mark.parametrize(
    ("column", "wanted", "want"),
    [
      (pa.array([1, None, 0], pa.int8()), pa.bool_(), ["true", "false"]),
      (pa.array([1.0, None]), pa.bool_(), ["true"]),
      (pa.array([True, None]), pa.int64(), ["1"]),
      (pa.array([" 2020-01-02", "", None]), pa.date32(), ["2020-01-02"]),
      (pa.array(["2020-01-02T00:00:00"]), pa.date32(), ["2020-01-02"]),
      (
        pa.array([1_577_923_200_000], pa.timestamp("ms")),
        pa.date32(),
        ["2020-01-02"],
      ),
      (pa.array([18_263], pa.date32()), pa.timestamp("s"), ["2020-01-02 00:00:00"]),
      (pa.array([20095.0]), pa.int64(), ["20095"]),
      (pa.array(["20095"]), pa.int64(), ["20095"]),
      (pa.array(["20095.0", " 7", ""]), pa.int64(), ["20095", "7"]),
      (pa.array(["20095.0", "x"]), pa.int64(), ["20095.0", "x"]),
      (pa.array([str(2**53 + 1)]), pa.int64(), [str(2**53 + 1)]),
      (pa.array(["True", "FALSE ", "1", None]), pa.bool_(), ["true", "false", "true"]),
      (pa.array([7]), pa.string(), ["7"]),
    ],
  )
  def test_cells_of_another_type_than_in_training(self, column, wanted, want):
    assert cells.strings(cells.match_type(column, wanted)).values.to_pylist() == want

  @pytest.mark.parametrize(
    ("column", "wanted", "message"),
    [
      (pa.array([1, None, 2]), pa.bool_(), "cell 2: '2' is not bool; write 0 or 1"),
      (
        pa.array(["true", "maybe"]),
        pa.bool_(),
        "cell 1: 'maybe' is not boolean, as in training",
      ),
      (
        pa.array([None, "4.11."]),
        pa.date32(),
        "cell 1: '4.11.' is not date, as in training",
      ),
      (
        pa.array([0, 3_600], pa.timestamp("s")),
        pa.date32(),
        "cell 1: '1970-01-01 01:00:00' is not date32.*without a time",
      ),
    ],
  )
  def test_what_another_type_cannot_hold_is_named(self, column, wanted, message):
    with pytest.raises(cells.CellError, match=message):
      cells.match_type(column, wanted)

  def test_the_log_scale_is_that_of_the_absolute_value(self):
    column = pa.array([-math.e + 1, 0.0, math.e**3 - 1])
    kind = Scalar("x", scale="log")
    values, _ = kind.elements(column, None)
    np.testing.assert_allclose(values[:, 0], [-1, 0, 3], atol=1e-12)

  def test_infinity_is_named_with_its_cell(self):
    column = pa.array([[1.0], [2.0, math.inf]])
    with pytest.raises(cells.CellError, match=r"cell 1: inf is not finite"):
      cells.numbers(column)

  def test_a_number_too_large_for_float32_is_refused(self):
    kind = Scalar("x", scale="none")
    column = pa.array([1.0, 1e300])
    with pytest.raises(cells.CellError, match="cell 1: .*too large.*log"):
      kind.encode(column, fitted(kind, column))

  def test_a_constant_becomes_zero(self):
    column = pa.array([3.3] * 5)
    kind = Scalar("x")
    assert not kind.encode(column, fitted(kind, column)).values.any()

  def test_moments_of_parts_are_those_of_the_whole(self):
    rng = np.random.default_rng(0)
    values = rng.normal(1e6, 1.0, (101, 3))  # A mean that eats digits.
    column = pa.array(values.tolist())
    state = fitted(Vector("x"), column)
    np.testing.assert_allclose(state.mean, values.mean(0), rtol=1e-12)
    np.testing.assert_allclose(state.deviation, values.std(0), rtol=1e-6)


class TestVectors:
  def test_a_vector_or_none(self):
    column = pa.array([[1.0, 2.0], None, [], [3.0, 4.0]])
    kind = Vector("x", scale="none")
    got = kind.encode(column, fitted(kind, column))
    assert lists(got) == [[[1.0, 2.0]], [], [], [[3.0, 4.0]]]

  def test_vectors_null_ones_left_out(self):
    column = pa.array(
      [[[1, 2], None, [3, 4]], None, []], pa.list_(pa.list_(pa.float32(), 2))
    )
    kind = VectorList("x", scale="none")
    got = kind.encode(column, fitted(kind, column))
    assert lists(got) == [[[1.0, 2.0], [3.0, 4.0]], [], []]

  def test_of_a_slice(self):
    column = pa.array([[[9.0]], [[1.0], [2.0]], None, [[3.0]]])[1:]
    got = cells.vectors(column, one=False, size=None)
    assert got.values[:, 0].tolist() == [1, 2, 3] and got.lengths.tolist() == [2, 0, 1]
    fixed = pa.array([[9.0, 9], [1, 2], None], pa.list_(pa.float64(), 2))[1:]
    got = cells.vectors(fixed, one=True, size=2)
    assert got.values.tolist() == [[1, 2]] and got.lengths.tolist() == [1, 0]

  @pytest.mark.parametrize(
    ("column", "one", "message"),
    [
      ([[1.0, 2], None, [1.0]], True, "cell 2: a vector has 1 numbers.*2"),
      ([[1.0, 2], [1.0, None]], True, "cell 1: number 1 of a vector is nan or null"),
      ([[1.0, math.nan]], True, "cell 0: number 1"),
      ([[[1.0]], [[1.0], [math.inf]]], False, "cell 1: number 0 of a vector is inf"),
      ([[[1.0]], [], [[1.0], []]], False, "cell 2: a vector has 0 numbers"),
      ([[[]]], False, "cell 0: a vector has no numbers"),
    ],
  )
  def test_a_vector_of_another_size_or_not_finite_is_named(self, column, one, message):
    with pytest.raises(cells.CellError, match=message):
      cells.vectors(pa.array(column), one=one, size=None)


class TestTokens:
  def test_the_vocabulary_is_of_enough_training_examples(self):
    column = pa.array([["a", "b", "a"], ["a"], None, ["c", None, ""]])
    kind = Tokens("x", weights="none")
    state = fitted(kind, column)
    assert state.words == [UNKNOWN, "a"]
    got = kind.encode(pa.array([["b", "a", "new"], []]), state)
    assert lists(got) == [[0, 1, 0], []]
    left_out = Tokens("x", weights="none", unknown="left_out")
    got = left_out.encode(pa.array([["b", "a", "new"], []]), fitted(left_out, column))
    assert lists(got) == [[0], []]

  def test_a_token_that_is_called_unknown_is_not_taken_for_it(self):
    column = pa.array([UNKNOWN, UNKNOWN, "a", "a"])
    kind = Category("x", unknown="left_out")
    state = fitted(kind, column)
    assert lists(kind.encode(pa.array([UNKNOWN, "b"]), state)) == [[0], []]

  def test_tf_idf_is_as_in_the_definition(self):
    texts = ["the cat and the dog", "a dog", "cat cat mat", None]
    kind = Text("x", min_count=1, ordered=False)
    column = pa.array(texts)
    state = fitted(kind, column)
    got = kind.encode(column, state)
    frequency = collections.Counter(w for t in texts if t for w in set(t.split()))
    for text, ids, weights in zip(
      texts,
      lists(got),
      [w.tolist() for w in np.split(got.weights, got.offsets[1:-1])],
      strict=True,
    ):
      count = collections.Counter((text or "").split())
      want = {
        w: (1 + math.log(n)) * (math.log(5 / (1 + frequency[w])) + 1)
        for w, n in count.items()
      }
      norm = math.sqrt(sum(v**2 for v in want.values()))
      found = {state.words[i]: w for i, w in zip(ids, weights, strict=True)}
      assert found == pytest.approx({w: v / norm for w, v in want.items()}, rel=1e-5)

  def test_ordered_words_share_their_weight(self):
    kind = Text("x", min_count=1, ordered=True)
    column = pa.array(["b a b"])
    state = fitted(kind, column)
    got = kind.encode(column, state)
    assert [state.words[i] for i in got.values] == ["b", "a", "b"]
    bag = Text("x", min_count=1).encode(column, state)
    total = collections.defaultdict(float)
    for index, weight in zip(got.values, got.weights, strict=True):
      total[index] += weight
    want = dict(zip(bag.values, bag.weights, strict=True))
    assert dict(total) == pytest.approx(want)

  def test_words_of_many_scripts(self):
    found = Text("x").tokens(
      pa.array(
        ["Éa-B2_c  ÀB's", "机器 Learning", "ÜBER", "e\u0301t\u00e9", "...", None]
      )
    )
    pieces = np.split(np.array(found.values.to_pylist()), np.cumsum(found.lengths)[:-1])
    assert [p.tolist() for p in pieces] == [
      ["éa", "b2", "c", "àb", "s"],
      ["机", "器", "learning"],
      ["über"],
      ["e\u0301té"],
      [],
      [],
    ]

  def test_texts_in_a_list_are_one_text(self):
    kind = Text("x", min_count=1, weights="none", ordered=True)
    column = pa.array([["one two", None, "three"], None])
    state = fitted(kind, column)
    got = kind.encode(column, state)
    words = [[state.words[i] for i in row] for row in lists(got)]
    assert words == [["one", "two", "three"], []]

  @pytest.mark.parametrize(
    ("column", "want"),
    [
      (pa.array([1, None, 3]), [["1"], [], ["3"]]),
      (pa.array([1.0, None, math.nan]), [["1"], [], []]),
      (pa.array([-0.0, 0.0]), [["0"], ["0"]]),
      (pa.array([2**64 - 1], pa.uint64()), [[str(2**64 - 1)]]),
      (pa.array([10**30 + 1, None], pa.decimal128(38, 0)), [[f"{10**30 + 1}"], []]),
      (pa.array([3]).cast(pa.decimal128(22, 2)), [["3"]]),
      (pa.array([True, None]), [["true"], []]),
      (pa.array(["a", "", None]), [["a"], [], []]),
      (pa.array([[1, None], [2]]), [["1"], ["2"]]),
      (pa.nulls(2), [[], []]),
    ],
  )
  def test_what_is_a_token(self, column, want):
    found = cells.strings(column)
    pieces = np.split(np.array(found.values.to_pylist()), np.cumsum(found.lengths)[:-1])
    assert [p.tolist() for p in pieces] == want

  def test_tokens_in_a_string(self):
    found = cells.strings(pa.array(["Drama| Comedy", "", None, "|War|"]), "|")
    assert found.values.to_pylist() == ["Drama", "Comedy", "War"]
    assert found.lengths.tolist() == [2, 0, 0, 1]

  def test_a_number_that_is_not_whole_is_no_token(self):
    with pytest.raises(cells.CellError, match=r"cell 1: 0\.5 is not a token"):
      cells.strings(pa.array([1.0, 0.5]))
    with pytest.raises(
      cells.CellError, match=r"cell 0: 1e\+16 .* too large to be exact"
    ):
      cells.strings(pa.array([1e16]))

  def test_buckets_are_those_of_crc_32(self):
    kind = Tokens("x", hash=7, weights="none")
    column = pa.array([["a", "b"], ["é"]])
    state = fitted(kind, column)
    want = [[zlib.crc32(w.encode()) % 7 for w in row] for row in column.to_pylist()]
    assert lists(kind.encode(column, state)) == want
    assert state.words is None and kind.modality(state).size == 7

  def test_no_frequent_token_is_an_error_that_says_the_way_out(self):
    kind = Tokens("x", unknown="left_out", min_count=3)
    with pytest.raises(ValueError, match="no token is in 3 .*'a', is in 2.*lower"):
      fitted(kind, pa.array([["a"], ["a", "b"]]))
    with pytest.raises(ValueError, match="no training example has a value"):
      fitted(kind, pa.nulls(2))


class TestImages:
  def picture(self, tmp_path, colour=(255, 0, 0)):
    path = tmp_path / "a.png"
    PIL.Image.new("RGB", (7, 5), colour).save(path)
    return path

  def test_bytes_and_paths_are_the_same_pixels(self, tmp_path):
    path = self.picture(tmp_path)
    kind = ImageColumn("x", size=2)
    of_bytes = kind.encode(pa.array([path.read_bytes(), None]), ImageFolder())
    of_path = kind.encode(pa.array(["a.png", None]), ImageFolder(str(tmp_path)))
    want = [[[1.0, -1.0, -1.0] * 4], []]
    assert lists(of_bytes) == lists(of_path) == want

  def colours(self, tmp_path):
    """Three pictures of one colour each: their paths, bytes and pixels."""
    names, contents, pixels = [], [], []
    for name, colour in (("a.png", "red"), ("b c.png", "lime"), ("d/e.png", "black")):
      path = tmp_path / name
      path.parent.mkdir(exist_ok=True)
      PIL.Image.new("RGB", (4, 4), colour).save(path)
      names.append(name)
      contents.append(path.read_bytes())
      rgb = PIL.ImageColor.getrgb(colour)
      pixels.append([value / 127.5 - 1 for value in rgb])
    return names, contents, pixels

  def test_a_row_may_have_several_pictures(self, tmp_path):
    names, contents, pixels = self.colours(tmp_path)
    rows = [[0, 1], [], [2], None, [1, None, 0]]

    def column(values, kind):
      def cell(row):
        return None if row is None else [None if i is None else values[i] for i in row]

      return pa.array([cell(row) for row in rows], pa.list_(kind))

    structs = [
      {"bytes": contents[0], "path": "no.png"},
      {"bytes": None, "path": names[1]},
      {"bytes": contents[2], "path": None},
    ]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    joined = ["a.png; b c.png", "", "d\\e.png", None, "b c.png;;a.png"]
    want = [[pixels[i] for i in row or [] if i is not None] for row in rows]
    for found, separator in (
      (column(names, pa.string()), None),
      (column(contents, pa.binary()), None),
      (column(structs, struct), None),
      (pa.array(joined), ";"),
    ):
      kind = ImageColumn("x", size=1, separator=separator)
      assert kind.accepts(found.type)
      got = kind.encode(found, ImageFolder(str(tmp_path)))
      assert [np.round(row, 6).tolist() for row in lists(got)] == want
    assert not ImageColumn.accepts(pa.list_(pa.int64()))
    assert not ImageColumn.accepts(pa.list_(pa.struct([("url", pa.string())])))

  def test_pictures_of_every_mode(self):
    """What is transparent is on white; 16 bits are as bright as 8."""

    def pixel(mode, colour, kind="PNG", **options):
      file = io.BytesIO()
      PIL.Image.new(mode, (3, 3), colour).save(file, kind, **options)
      got = ImageColumn("x", size=1).encode(pa.array([file.getvalue()]), ImageFolder())
      return np.round((got.values[0] + 1) * 127.5).astype(int).tolist()

    assert pixel("L", 100) == [100] * 3
    assert pixel("1", 1) == [255] * 3
    assert pixel("I;16", 100 * 257) == [100] * 3
    assert pixel("RGBA", (10, 20, 30, 255)) == [10, 20, 30]
    assert pixel("RGBA", (10, 20, 30, 0)) == [255] * 3
    assert pixel("LA", (0, 51)) == [204] * 3
    cyan = pixel("CMYK", (255, 0, 0, 0), "TIFF")
    assert cyan == [0, 255, 255]
    palette = PIL.Image.new("P", (3, 3), 0)
    palette.putpalette([9, 8, 7])
    file = io.BytesIO()
    palette.save(file, "PNG")
    got = ImageColumn("x", size=1).encode(pa.array([file.getvalue()]), ImageFolder())
    assert np.round((got.values[0] + 1) * 127.5).tolist() == [9, 8, 7]

  @pytest.mark.parametrize(
    ("cell", "reason"),
    [
      (b"\x89PNG no", "begin with"),
      ("none.png", "none.png cannot be read .*No such file"),
      ("https://example.org/a.png", "is a URL; download the picture"),
      ("text.png", "text.png: 6 bytes that begin with b'<html>': none of"),
      ("", None),
    ],
  )
  def test_a_picture_that_cannot_be_read_is_absent_or_an_error(
    self, tmp_path, cell, reason
  ):
    (tmp_path / "text.png").write_text("<html>")
    good = self.picture(tmp_path)
    contents = good.read_bytes() if isinstance(cell, bytes) else good.name
    column = pa.array([None, [contents, cell, contents]])
    folder, told = ImageFolder(str(tmp_path)), []
    kind = ImageColumn("x", size=1)
    got = kind.encode(column, folder, lambda *args: told.append(args))
    assert got.lengths.tolist() == [0, 2]
    if reason is None:
      assert not told
      return
    ((index, said),) = told
    assert index == 1 and re.search(reason, said)
    message = f"cell 1: the image cannot be read: .*{reason}"
    for kind, skipped in (
      (ImageColumn("x"), None),
      (ImageColumn("x", unreadable="error"), told.append),
    ):
      with pytest.raises(cells.CellError, match=message):
        kind.encode(column, folder, skipped)

  def test_what_cannot_be_read_is_counted_and_the_first_listed(self):
    parts = Unreadable(), Unreadable(), Unreadable()
    for row in range(25):
      parts[row % 2].add(row, "photo", "why")
      parts[2].add(row, "photo", "why")
    parts[0].merge(Unreadable(**json.loads(json.dumps(parts[1].to_json()))))
    for whole in parts[0], parts[2]:
      lines = whole.describe("a.csv").splitlines()
      assert lines[0] == "a.csv: 25 images cannot be read and are absent:"
      assert lines[1] == "  row 0, column 'photo': why"
      assert len(lines) == 22 and lines[-1] == "  and 5 more"


class TestLabels:
  def answers(self, label, column):
    fitting = label.fitting()
    fitting.add(column)
    return LabelEncoder(fitting.names())

  def test_of_several(self):
    label = Label("y", "multilabel")
    column = pa.array([["b", "a", "b"], [], ["a", None]])
    answers = self.answers(label, column)
    assert answers.names == ("a", "b")
    assert label.encode(column, answers).tolist() == [[1, 1], [0, 0], [1, 0]]

  def test_rare_labels_are_none(self):
    label = Label("y", "multilabel", min_count=2, separator="|")
    column = pa.array(["a|b", "a", "c"])
    answers = self.answers(label, column)
    assert label.encode(column, answers).tolist() == [[1], [1], [0]]

  def test_classes_that_are_numbers_stand_in_their_order(self):
    label = Label("y", "multiclass")
    column = pa.array([10, 9, -1, 10])
    answers = self.answers(label, column)
    assert answers.names == ("-1", "9", "10")
    assert label.encode(column, answers).tolist() == [2, 1, 0, 2]

  def test_zero_or_one(self):
    label = Label("y", "binary")
    assert label.encode(pa.array([True, False]), LabelEncoder()).tolist() == [1, 0]
    with pytest.raises(cells.CellError, match="cell 1: the label is 2, not 0 or 1"):
      label.encode(pa.array([0, 2]), LabelEncoder())

  def test_a_missing_label_is_an_error_or_left_out(self):
    for kind, column in [
      ("multiclass", pa.array(["a", None, ""])),
      ("binary", pa.array([1.0, None, math.nan])),
      ("regression", pa.array([1.0, None, math.nan])),
      ("regression", pa.array([[1.0], None, []])),
    ]:
      drop = Label("y", kind, missing="drop")
      assert drop.label_mask(column).tolist() == [True, False, False]
      with pytest.raises(cells.CellError, match="cell 1: the label is missing"):
        Label("y", kind).label_mask(column)
    several = Label("y", "multilabel")
    assert several.label_mask(pa.array([["a"], []])).all()  # None is an answer.

  def test_a_number_missing_among_several_is_an_error_or_left_out(self):
    column = pa.array([[1.0, 2.0], [3.0, None], None, [], [math.nan, 1.0], [5.0, 6.0]])
    drop = Label("y", "regression", missing="drop")
    there = drop.label_mask(column)
    assert there.tolist() == [True, False, False, False, False, True]
    assert drop.numbers(column.filter(pa.array(there))).tolist() == [[1, 2], [5, 6]]
    message = r"cell 1: a number of the label is missing: \[3.0, None\].*a run for each"
    with pytest.raises(cells.CellError, match=message):
      Label("y", "regression").label_mask(column)

  @pytest.mark.parametrize(
    ("separator", "column"),
    [
      (";", pa.array(["a;b", None, "", "b"])),
      (None, pa.array([["a", "b"], None, [], ["b"]])),
    ],
  )
  def test_an_empty_cell_may_have_none_of_the_labels(self, separator, column):
    label = Label("y", "multilabel", missing="none", separator=separator)
    assert label.label_mask(column).all()
    answers = self.answers(label, column)
    assert label.encode(column, answers).tolist() == [[1, 1], [0, 0], [0, 0], [0, 1]]
    with pytest.raises(cells.CellError, match='cell 1: .*"none" if they have none'):
      Label("y", "multilabel", separator=separator).label_mask(column)
    drop = Label("y", "multilabel", missing="drop", separator=separator)
    # An empty list has been written down; an empty string is a cell without anything.
    assert drop.label_mask(column).tolist() == [True, False, separator is None, True]
    with pytest.raises(ValueError, match="missing 'none': .* for a binary label"):
      Label("y", "binary", missing="none")

  @pytest.mark.parametrize(
    ("kind", "column", "message"),
    [
      (
        "multiclass",
        ["a", "a"],
        "its only value is .'a'., so there is nothing",
      ),
      ("binary", [1, 1], "every label is 1"),
      ("multilabel", [[], []], "no label is in 1 examples"),
    ],
  )
  def test_one_value_is_nothing_to_learn(self, kind, column, message):
    with pytest.raises(ValueError, match=message):
      self.answers(Label("y", kind), pa.array(column))


SPEC = {
  "modalities": {"plot": {"kind": "text", "column": "the plot"}},
  "label": {"column": "genres", "kind": "multilabel"},
}


class TestSpec:
  def test_it_goes_to_json_and_back(self):
    found = spec.from_json(SPEC, "spec")
    assert spec.from_json(json.loads(json.dumps(found.to_json())), "spec") == found
    assert found.columns == ["the plot", "genres"]

  @pytest.mark.parametrize(
    ("change", "message"),
    [
      ({"modalities": {}}, "modalities: there are none"),
      (
        {"modalities": {"a": {"kind": "movie"}}},
        "modalities.a: kind 'movie'; expected",
      ),
      (
        {"modalities": {"a": {"kind": "text", "column": "a", "min_cuont": 2}}},
        "modalities.a: unknown setting 'min_cuont'; expected one of .*'min_count'",
      ),
      (
        {"modalities": {"a": {"kind": "text", "column": "a", "min_count": "2"}}},
        "modalities.a.min_count: '2'; expected int",
      ),
      (
        {"modalities": {"a": {"kind": "text", "column": "a", "min_count": True}}},
        "modalities.a.min_count: True; expected int",
      ),
      ({"modalities": {"a": {"kind": "number"}}}, "modalities.a: 'column' is missing"),
      (
        {"modalities": {"a": {"kind": "number", "column": "a", "scale": "big"}}},
        "modalities.a: unknown scale 'big'",
      ),
      (
        {"modalities": {"a b": {"kind": "text", "column": "a"}}},
        "'a b' is not a legal",
      ),
      (
        {"modalities": {"a": {"kind": "text", "column": "genres"}}},
        "is also the lab",
      ),
      ({"modalities": []}, r"modalities: \[\]; expected an object"),
      ({"label": None}, "label: it is missing"),
      ({"label": {"column": "y", "kind": "rank"}}, "label: label kind 'rank'"),
      ({"shares": [0.5, 0.5, 0.5]}, "shares: .*with sum 1"),
      ({"shares": 3}, "shares: 3; expected"),
      ({"splits": "s"}, "unknown setting 'splits'; expected one of"),
      ({"id": 3}, "id: 3; expected str"),
    ],
  )
  def test_what_is_wrong_is_named_with_the_way_out(self, change, message):
    with pytest.raises(DataError, match=message) as error:
      spec.from_json(SPEC | change, "films.spec.json")
    assert str(error.value).startswith("films.spec.json: ")
    assert "experiments.describe" in str(error.value)

  def test_every_setting_of_every_kind_is_known_by_its_type(self):
    for cls in (*spec.KINDS.values(), Label):
      for name, annotation in cls.__init__.__annotations__.items():
        assert name == "return" or str(annotation) in settings._TYPES, (cls, name)

  @pytest.mark.parametrize(
    ("schema", "message"),
    [
      (
        {"genres": pa.list_(pa.string())},
        "names column 'the plot', but .* .'genres'",
      ),
      (
        {"the plot": pa.float64(), "genres": pa.list_(pa.string())},
        "'the plot' is double, but modality 'plot' of kind 'text' needs .*'number'",
      ),
      (
        {"the plot": pa.string(), "genres": pa.string()},
        "'genres' is string, but a multilabel label is a list",
      ),
    ],
  )
  def test_columns_that_do_not_fit_are_named(self, schema, message):
    with pytest.raises(DataError, match=message):
      spec.from_json(SPEC, "spec").check(pa.schema(list(schema.items())), "films.csv")

  @pytest.mark.parametrize(
    ("path", "want"),
    [
      ("a/films.parquet", "a/films.spec.json"),
      ("films.csv.gz", "films.spec.json"),
      ("parts/", "parts.spec.json"),
      ("tfds:mnist/x:1.0.0", "mnist_x_1_0_0.spec.json"),
    ],
  )
  def test_it_stands_beside_the_file(self, path, want):
    assert str(spec.path_beside(path)) == want


def test_document_frequency_is_that_of_a_loop():
  rows = [[0, 1, 0], [], [2, 1], [1]]
  got = tfidf.document_frequency(from_lists(rows, dtype=np.int32), 4)
  assert got.tolist() == [sum(i in row for row in rows) for i in range(4)]


MERGED = {
  "number": (Scalar("x"), pa.array([1.0, None, -2.0, 4.5, 7.0, 0.0, 3.0])),
  "vector": (Vector("x"), pa.array([[1.0, 5.0], None, [2.0, 4.0], [0.5, -1.0]] * 2)),
  "tokens": (
    Tokens("x", min_count=2),
    pa.array([["a", "b"], ["a"], None, ["c", "a"], ["b", "b"], []]),
  ),
  "buckets": (Tokens("x", hash=5), pa.array([["a", "b"], ["a"], None, ["c"], ["d"]])),
  "text": (Text("x"), pa.array(["a b", "b c", None, "a a", "c"])),
  "image": (ImageColumn("x"), pa.array([None, None, b"a picture", None])),
}


@pytest.mark.parametrize("name", MERGED)
@pytest.mark.parametrize("cuts", [(0,), (1,), (2, 3), (3, 3)])
def test_what_is_fitted_on_parts_is_merged_in_any_order(name, cuts):
  kind, column = MERGED[name]
  want = fitted(kind, column).to_json()
  parts = []
  for begin, end in itertools.pairwise((0, *cuts, len(column))):
    parts.append(kind.fitting())
    if end > begin:
      parts[-1].add(column[begin:end])
  for order in (parts, parts[::-1]):
    whole = kind.fitting()
    for part in order:
      whole.merge(part)
    got = whole.result().to_json()
    assert got.keys() == want.keys()
    for key, value in want.items():
      if name in ("number", "vector"):
        np.testing.assert_allclose(got[key], value, rtol=1e-12)
      else:
        assert got[key] == value


def test_vectors_of_two_sizes_are_not_merged():
  kind = Vector("x")
  one, other = kind.fitting(), kind.fitting()
  one.add(pa.array([[1.0, 2.0]]))
  other.add(pa.array([[1.0, 2.0, 3.0]]))
  with pytest.raises(ValueError, match="vectors of 2 and of 3 numbers"):
    one.merge(other)
