"""Extraction from pictures and texts to a file, with extractors without weights."""

import functools
import inspect
import io
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.extraction import base, onnx
from deepsets_jax.data.ingest import pictures
from deepsets_jax.extraction import (
  EXTRACTORS,
  cache,
  chunks,
  efficientnet,
  faces,
  inputs,
  lines,
  output,
  pipeline,
  regions,
  texts,
  worker,
)
from deepsets_jax.extraction import onnx as network
from deepsets_jax.extraction.pipeline import Settings
from deepsets_jax.extraction.protocol import Extraction
from deepsets_jax.foundation.errors import DataError
from experiments import extract

ROOT = pathlib.Path(__file__).parents[2]
SMALL = Settings(batch_size=4, max_side=16)


class Colours:
  """For each channel that is not all black its mean, and the place of nothing."""

  name, kind, dimension, licence = "colours", "image", 3, "none needed"

  def __init__(self, log=None, fingerprint="colours 1"):
    self.log, self.fingerprint = log, fingerprint

  def __call__(self, batch):
    return [self.find(picture) for picture in batch]

  def find(self, picture):
    log_input(self.log, picture.tobytes(), len(np.unique(picture)) == 1)
    channels = [c for c in range(3) if picture[:, :, c].any()]
    vectors = np.zeros((len(channels), 3), np.float32)
    for slot, channel in enumerate(channels):
      vectors[slot, channel] = picture[:, :, channel].mean() / 255
    boxes = np.zeros((len(channels), 4), np.float32)
    boxes[:, 2:] = 1
    return Extraction(vectors, boxes=boxes, scores=vectors.max(axis=1, initial=0))


class Words:
  """The number of letters of each word, and the word."""

  name, kind, dimension, licence = "words", "text", 1, "none needed"

  def __init__(self, log=None, fingerprint="words 1"):
    self.log, self.fingerprint = log, fingerprint

  def __call__(self, batch):
    return [self.find(text) for text in batch]

  def find(self, text):
    log_input(self.log, text.encode(), text == "Three cats.")
    words = text.split()
    vectors = np.array([[len(word)] for word in words], np.float32).reshape(-1, 1)
    return Extraction(vectors, strings=words)


def log_input(log, data, probe):
  """Log a line for each input that an extractor sees, except the probe."""
  if log is not None and not probe:
    with open(log, "a") as file:
      file.write(f"{os.getpid()} {data[:40].hex()}\n")


def make(log=None):
  return [Colours(log), Words(log)]


def seen(log):
  """Process and content of each input that extractors have seen."""
  lines = pathlib.Path(log).read_text().split("\n") if log.exists() else []
  return [line.split() for line in lines if line]


def picture(seed, kind="PNG"):
  """The bytes of a picture whose channels are black or noise."""
  rng = np.random.default_rng(seed)
  pixels = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
  pixels[:, :, rng.uniform(size=3) < 0.4] = 0
  pixels[0, 0, 0] = seed % 251 + 1  # No two are the same, none is all black.
  buffer = io.BytesIO()
  PIL.Image.fromarray(pixels).save(buffer, kind)
  return buffer.getvalue()


@pytest.fixture
def photos(tmp_path):
  """A folder of twelve pictures and six texts in three folders, some without other."""
  folder = tmp_path / "photos"
  for i in range(12):
    parent = folder / ("abc"[i % 3])
    parent.mkdir(parents=True, exist_ok=True)
    (parent / f"{i:02}.PNG").write_bytes(picture(i))
    if i % 2:
      (parent / f"{i:02}.txt").write_text(f"picture {i} of\ntwelve")
  (folder / "alone.txt").write_text("no picture")
  (folder / ".hidden.png").write_text("not to be seen")
  (folder / "notes.md").write_text("not to be seen")
  return folder


def run(given, path, log=None, settings=SMALL, **options):
  folder = options.pop("cache", f"{path}.cache")
  maker = options.pop("maker", functools.partial(make, log))
  return pipeline.run_pipeline(given, path, maker, settings, folder, **options)


def by_loop(images, texts, root="."):
  """The rows from a plain loop, without cache, chunks or Arrow."""
  rows = []
  for image, text in zip(images, texts, strict=True):
    data = pathlib.Path(root, image).read_bytes() if isinstance(image, str) else image
    colours = None if data is None else Colours().find(pictures.decode(data, 16))
    words = None if text is None else Words().find(text)
    rows.append(
      {
        "colours": None if colours is None else colours.vectors.tolist(),
        "colours.boxes": None if colours is None else colours.boxes.tolist(),
        "colours.scores": None if colours is None else colours.scores.tolist(),
        "words": None if words is None else words.vectors.tolist(),
        "words.strings": None if words is None else list(words.strings),
      }
    )
  return rows


def found_in(path):
  table = pq.read_table(path, page_checksum_verification=True)
  made = [name for name in table.column_names if name.split(".")[0] in NAMES]
  return table.select(made).to_pylist()


NAMES = ("colours", "words")


def write(path, columns, **options):
  pq.write_table(pa.table(columns), path, **options)
  return str(path)


class TestAFolder:
  def test_is_a_row_for_each_stem_in_order(self, photos, tmp_path):
    path = tmp_path / "photos.parquet"
    summary = run(inputs.open_input(str(photos)), path)
    table = pq.read_table(path)
    stems = sorted([f"{'abc'[i % 3]}/{i:02}" for i in range(12)] + ["alone"])
    assert table["id"].to_pylist() == stems
    images = [None if stem == "alone" else f"photos/{stem}.PNG" for stem in stems]
    assert table["path"].to_pylist() == images
    texts = {stem: f"picture {stem[2:].lstrip('0')} of\ntwelve" for stem in stems}
    wanted = [
      "no picture" if s == "alone" else texts[s] if int(s[2:]) % 2 else None
      for s in stems
    ]
    assert table["text"].to_pylist() == wanted
    assert found_in(path) == by_loop(images, wanted, tmp_path)
    assert summary.rows == 13 and not summary.problems
    rows = found_in(path)
    for name in NAMES:
      assert summary.elements[name] == sum(len(row[name] or ()) for row in rows) > 0
    assert summary.licences == {"colours": "none needed", "words": "none needed"}

  def test_has_types_that_say_the_size(self, photos, tmp_path):
    path = tmp_path / "photos.parquet"
    run(inputs.open_input(str(photos)), path)
    schema = pq.read_schema(path)
    assert schema.field("colours").type == pa.list_(pa.list_(pa.float32(), 3))
    assert schema.field("colours.boxes").type == pa.list_(pa.list_(pa.float32(), 4))
    assert schema.field("colours.scores").type == pa.list_(pa.float32())
    assert schema.field("words.strings").type == pa.list_(pa.string())
    assert "colours.strings" not in schema.names and "words.boxes" not in schema.names
    made = json.loads(schema.metadata[b"modalities"])
    assert made["words"]["column"] == "text"
    assert made["colours"]["licence"] == "none needed"

  def test_is_read_from_any_row_on(self, photos):
    folder = inputs.Folder(str(photos))
    whole = pa.Table.from_batches(folder.batches())
    assert len(whole) == folder.num_rows == 13
    for start in (0, 5, 13):
      rest = pa.Table.from_batches(
        folder.batches(["text", "id"], start=start),
        None if start < 13 else whole.select(["text", "id"]).schema,
      )
      assert rest.equals(whole.slice(start).select(["text", "id"]))

  def test_with_two_pictures_of_one_stem_is_refused(self, photos):
    (photos / "a" / "00.jpg").write_bytes(picture(0, "JPEG"))
    with pytest.raises(DataError, match=r"'a/00\.PNG' and 'a/00\.jpg'.*'a/00'"):
      inputs.open_input(str(photos))

  def test_without_pictures_and_texts_is_refused(self, tmp_path):
    (tmp_path / "notes.md").write_text("")
    with pytest.raises(DataError, match=r"no picture and no text.*\.jpg"):
      inputs.open_input(str(tmp_path))

  def test_files_of_other_formats_are_counted_and_named(self, tmp_path, photos):
    before = inputs.Folder(str(photos)).left_out
    for name in ("a/1.HEIC", "a/2.heic", "3.pdf", ".hidden.pdf", "b/none"):
      (photos / name).parent.mkdir(exist_ok=True)
      (photos / name).write_bytes(b"")
    given = inputs.open_input(str(photos))
    assert given.left_out - before == {".heic": 2, ".pdf": 1, "without suffix": 1}
    line = extract.left_out({".heic": 2, ".pdf": 1})
    assert line == (
      "left out: 2 .heic, 1 .pdf. These formats are not supported: save pictures as"
      " JPEG or PNG, and texts as .txt."
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1.heic").write_bytes(b"")
    with pytest.raises(DataError, match=r"no picture and no text, but 1 \.heic"):
      inputs.open_input(str(tmp_path / "other"))


class TestATable:
  def test_keeps_its_other_columns_and_order(self, tmp_path):
    images = [picture(i) if i % 4 else None for i in range(30)]
    texts = [f"text {i}" if i % 3 else None for i in range(30)]
    columns = {
      "year": list(range(30)),
      "poster": images,
      "plot": texts,
      "genres": [["a", "b"], [], None] * 10,
      "score": [0.5, None, 1.5] * 10,
    }
    given = write(tmp_path / "films.parquet", columns, row_group_size=10)
    assert pq.ParquetFile(given).num_row_groups == 3
    path = tmp_path / "sets.parquet"
    run(inputs.open_input(given, ["poster"], ["plot"]), path)
    assert found_in(path) == by_loop(images, texts)
    # The bytes of pictures are left out.
    kept = pq.read_table(path, columns=["year", "plot", "genres", "score"])
    assert kept.equals(pq.read_table(given).drop_columns(["poster"]))
    assert "poster" not in pq.read_schema(path).names

  def test_has_paths_that_begin_in_its_folder(self, photos, tmp_path):
    paths = ["a/00.PNG", str(photos / "b" / "01.PNG"), None, ""]
    given = write(photos / "table.parquet", {"file": paths, "n": [0, 1, 2, 3]})
    path = tmp_path / "sets.parquet"
    summary = run(inputs.open_input(given, ["file"]), path, maker=colours_only)
    found = pq.read_table(path)
    # As seen from the output, so that it is a table with pictures in its turn.
    assert found["file"].to_pylist() == ["photos/a/00.PNG", paths[1], None, None]
    beside = photos / "sets.parquet"
    run(inputs.open_input(given, ["file"]), beside, maker=colours_only)
    assert pq.read_table(beside)["file"].to_pylist() == [*paths[:2], None, None]
    want = by_loop([paths[0], paths[1], None, None], [None] * 4, photos)
    assert found["colours"].to_pylist() == [row["colours"] for row in want]
    # What is empty is absent, and no problem.
    assert not summary.problems

  def test_has_lists_of_texts_one_after_the_other(self, tmp_path):
    texts = [["one two", "three"], [], None, ["", None, " "], [None, "four"]]
    given = write(tmp_path / "t.parquet", {"texts": texts})
    path = tmp_path / "sets.parquet"
    run(inputs.open_input(given, (), ["texts"]), path, maker=words_only)
    want = [["one", "two", "three"], [], None, [], ["four"]]
    assert pq.read_table(path)["words.strings"].to_pylist() == want
    lengths = [None if row is None else [[len(w)] for w in row] for row in want]
    assert pq.read_table(path)["words"].to_pylist() == lengths

  def test_names_modalities_by_column_where_there_are_several(self, tmp_path):
    columns = {"front": [picture(1)], "back": [picture(2)], "text": ["a b"]}
    given = write(tmp_path / "t.parquet", columns)
    path = tmp_path / "sets.parquet"
    run(inputs.open_input(given, ["front", "back"], ["text"]), path)
    rows = pq.read_table(path).to_pylist()[0]
    for seed, column in ((1, "front"), (2, "back")):
      want = Colours().find(pictures.decode(picture(seed), 16))
      assert rows[f"{column}.colours"] == want.vectors.tolist()
    assert rows["words.strings"] == ["a", "b"] and "colours" not in rows

  @pytest.mark.parametrize(
    ("images", "texts", "message"),
    [
      ([], [], "no columns of pictures.*'--images': .'p', 't'.*'--texts': .'t', 'l'"),
      (["q"], [], "no column 'q'.*--images.*'p', 't', 'l', 'n'"),
      (["n"], [], "'n' of --images is int64, expected bytes or paths"),
      ([], ["p"], "'p' of --texts is binary, expected strings"),
      (["t"], ["t"], "'t' is in --images and in --texts"),
    ],
  )
  def test_with_wrong_columns_is_refused(self, tmp_path, images, texts, message):
    columns = {"p": [b""], "t": [""], "l": [["", ""]], "n": [1]}
    given = write(tmp_path / "t.parquet", columns)
    with pytest.raises(DataError, match=message):
      inputs.open_input(given, images, texts)

  @pytest.mark.parametrize(
    ("columns", "images", "texts", "message"),
    [
      ({"t": ["a"]}, [], ["t"], "'colours' needs a column of images.*--images"),
      ({"words": [b""], "t": ["a"], "colours.boxes": [1]}, ["words"], ["t"], "boxes"),
      (
        {"p": [b""], "words": ["a"]},
        ["p"],
        ["words"],
        "a column 'words' already.*Rename",
      ),
    ],
  )
  def test_that_does_not_fit_the_extractors_is_refused(
    self, tmp_path, columns, images, texts, message
  ):
    given = write(tmp_path / "t.parquet", columns)
    path = tmp_path / "sets.parquet"
    with pytest.raises(DataError, match=message):
      run(inputs.open_input(given, images, texts), path)
    assert sorted(file.name for file in tmp_path.glob("*.parquet")) == ["t.parquet"]


def colours_only():
  return [Colours()]


def words_only():
  return [Words()]


class TestTheCache:
  def test_has_what_came_twice_looked_at_once(self, tmp_path):
    seeds = [i % 5 for i in range(40)]
    columns = {"p": [picture(s) for s in seeds], "t": [f"text {s}" for s in seeds]}
    given = inputs.open_input(write(tmp_path / "t.parquet", columns), ["p"], ["t"])
    path, log = tmp_path / "sets.parquet", tmp_path / "log"
    summary = run(given, path, log)
    assert len(seen(log)) == 10 == summary.extracted and summary.reused == 70
    assert found_in(path) == by_loop(columns["p"], columns["t"])

  def test_makes_a_second_run_do_what_is_new(self, photos, tmp_path):
    path, log = tmp_path / "photos.parquet", tmp_path / "log"
    run(inputs.open_input(str(photos)), path, log)
    first, before = path.read_bytes(), len(seen(log))
    assert before == 12 + 7
    again = run(inputs.open_input(str(photos)), path, log)
    assert path.read_bytes() == first and len(seen(log)) == before
    assert again.extracted == 0 and again.reused == before
    (photos / "a" / "00.PNG").rename(photos / "z.png")  # The same under another name.
    (photos / "new.jpg").write_bytes(picture(99, "JPEG"))
    run(inputs.open_input(str(photos)), path, log)
    assert len(seen(log)) == before + 1

  def test_is_of_the_weights_and_of_the_size_of_pictures(self, photos, tmp_path):
    path = tmp_path / "photos.parquet"
    given = inputs.open_input(str(photos))
    for fingerprint, side, extracted in [("1", 16, 12), ("2", 16, 12), ("2", 4, 12)]:
      maker = functools.partial(other_colours, fingerprint)
      settings = Settings(batch_size=4, max_side=side)
      summary = run(given, path, maker=maker, settings=settings)
      assert summary.extracted == extracted
    assert run(given, path, maker=maker, settings=settings).reused == 12


def other_colours(fingerprint):
  return [Colours(fingerprint=fingerprint)]


class TestAStop:
  def test_costs_nothing_that_was_done(self, photos, tmp_path):
    path, log, whole = tmp_path / "p.parquet", tmp_path / "log", tmp_path / "w.parquet"
    given = inputs.open_input(str(photos))

    def stop(rows):
      if rows >= 8:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
      run(given, path, log, progress=stop)
    assert not path.exists() and not list(tmp_path.glob(".p.parquet*"))
    assert 0 < len(seen(log)) < 19
    run(given, path, log)
    run(given, whole)
    assert path.read_bytes() == whole.read_bytes()
    inputs_seen = [data for _, data in seen(log)]
    assert len(inputs_seen) == len(set(inputs_seen)) == 19

  def test_by_a_kill_costs_nothing_that_was_kept(self, photos, tmp_path):
    path, log, whole = tmp_path / "p.parquet", tmp_path / "log", tmp_path / "w.parquet"
    code = (
      "import os, signal, sys\n"
      "sys.path.insert(0, sys.argv[1])\n"
      "import extract_pipeline_test as test\n"
      "def kill(rows):\n"
      "  if rows >= 8: os.kill(os.getpid(), signal.SIGKILL)\n"
      "given = test.inputs.open_input(sys.argv[2])\n"
      "test.run(given, test.pathlib.Path(sys.argv[3]),"
      " test.pathlib.Path(sys.argv[4]), progress=kill)\n"
    )
    command = [sys.executable, "-c", code, pathlib.Path(__file__).parent]
    done = subprocess.run([*command, photos, path, log], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL and not path.exists()
    killed = len(seen(log))
    assert 0 < killed < 19
    summary = run(inputs.open_input(str(photos)), path, log)
    run(inputs.open_input(str(photos)), whole)
    assert path.read_bytes() == whole.read_bytes()
    assert summary.reused >= 8 and len(seen(log)) == 19
    # What the killed run left is written over, not left lying about.
    assert not list(tmp_path.glob(".p.parquet*"))


class TestBrokenPictures:
  def kinds(self, tmp_path):
    good = picture(1, "JPEG")
    pages = picture(2, "GIF")
    files = {
      "good.jpg": good,
      "half.jpg": good[: len(good) // 2],
      "text.png": b"I am a text.",
      "nothing.png": b"",
      "pages.gif": pages,
    }
    for name, data in files.items():
      (tmp_path / name).write_bytes(data)
    (tmp_path / "folder.png").mkdir()
    return [*files, "folder.png", "gone.png", "nul\0.png", None]

  def test_are_absent_and_listed_with_their_reasons(self, tmp_path):
    names = self.kinds(tmp_path)
    texts = [f"row {i}" for i in range(len(names))]
    given = write(tmp_path / "t.parquet", {"file": names, "text": texts})
    path = tmp_path / "sets.parquet"
    summary = run(inputs.open_input(given, ["file"], ["text"]), path)
    bad = [1, 2, 3, 5, 6, 7]
    rows = pq.read_table(path).to_pylist()
    for index, row in enumerate(rows):
      absent = index in bad or names[index] is None
      for column in ("colours", "colours.boxes", "colours.scores"):
        assert (row[column] is None) == absent, (index, column)
      assert row["words.strings"] == ["row", str(index)]
    assert [problem.row for problem in summary.problems] == bad
    assert [problem.value for problem in summary.problems] == [names[i] for i in bad]
    reasons = [problem.reason for problem in summary.problems]
    expected = ["Truncated", "none of", "empty", "folder", "No such file", "null byte"]
    for reason, part in zip(reasons, expected, strict=True):
      assert part in reason
    listed = json.loads(pathlib.Path(f"{path}.problems.json").read_text())
    assert [problem["reason"] for problem in listed] == reasons
    assert listed[0]["column"] == "file" and listed[0]["extractor"] is None

  def test_that_are_repaired_are_no_problem_any_more(self, photos, tmp_path):
    path = tmp_path / "photos.parquet"
    (photos / "a" / "00.PNG").write_bytes(b"broken")
    assert len(run(inputs.open_input(str(photos)), path).problems) == 1
    assert pathlib.Path(f"{path}.problems.json").exists()
    (photos / "a" / "00.PNG").write_bytes(picture(0))
    assert not run(inputs.open_input(str(photos)), path).problems
    assert not pathlib.Path(f"{path}.problems.json").exists()
    rows = found_in(path)
    assert [row["colours"] for row in rows].count(None) == 1  # There is a text alone.

  def test_that_come_twice_are_listed_twice_and_decoded_once(
    self, tmp_path, monkeypatch
  ):
    decoded = []
    decode = pictures.decode
    monkeypatch.setattr(
      pictures, "decode", lambda data, side: decoded.append(data) or decode(data, side)
    )
    given = write(tmp_path / "t.parquet", {"p": [b"bad", picture(1)] * 10})
    given = inputs.open_input(given, ["p"])
    path = tmp_path / "sets.parquet"
    summary = run(given, path, maker=colours_only)
    assert [problem.row for problem in summary.problems] == list(range(0, 20, 2))
    assert len(decoded) == 2

  def test_are_texts_that_lost_characters_listed(self, photos, tmp_path):
    (photos / "alone.txt").write_bytes(b"caf\xe9 au lait")
    path = tmp_path / "photos.parquet"
    (problem,) = run(inputs.open_input(str(photos)), path).problems
    assert problem.column == "text" and "UTF-8" in problem.reason
    assert found_in(path)[problem.row]["words.strings"] == ["caf\ufffd", "au", "lait"]


class Fails(Colours):
  """Fails, or gives what it should not, by the first pixel."""

  def find(self, picture):
    found = super().find(picture)
    match int(picture[0, 0, 0]):
      case 2:
        raise RuntimeError("cannot see it")
      case 3:
        return Extraction(found.vectors * np.nan, found.boxes, found.scores)
      case 4:
        return Extraction(found.vectors, None, found.scores)
      case 5:
        return Extraction(found.vectors[:, :2], found.boxes, found.scores)
    return found


def fails():
  return [Fails()]


def test_an_extractor_that_fails_on_a_picture_gives_the_others(tmp_path):
  images = [picture(i) for i in range(8)]  # The first pixel is one more.
  given = write(tmp_path / "t.parquet", {"p": images})
  path = tmp_path / "sets.parquet"
  summary = run(inputs.open_input(given, ["p"]), path, maker=fails)
  rows = pq.read_table(path)["colours"].to_pylist()
  assert [index for index, row in enumerate(rows) if row is None] == [1, 2, 3, 4]
  want = by_loop(images, [None] * 8)
  assert [rows[i] for i in (0, 5, 6, 7)] == [want[i]["colours"] for i in (0, 5, 6, 7)]
  assert {problem.extractor for problem in summary.problems} == {"colours"}
  reasons = [problem.reason for problem in summary.problems]
  for reason, part in zip(
    reasons,
    ("cannot see it", "not finite", "boxes", "(2, 2)|(1, 2)|(3, 2)"),
    strict=True,
  ):
    assert any(one in reason for one in part.split("|")), reason


class Liar(Colours):
  dimension = 4


def liar():
  return [Liar()]


def twins():
  return [Colours(), Colours()]


@pytest.mark.parametrize(
  ("maker", "part"), [(liar, "(3, 4)"), (twins, "two extractors")]
)
def test_extractors_that_are_wrong_are_refused_before_any_work(
  photos, tmp_path, maker, part
):
  given = inputs.open_input(str(photos))
  with pytest.raises(ValueError) as error:
    run(given, tmp_path / "p.parquet", maker=maker, cache=tmp_path / "cache")
  assert part in str(error.value) and "colours" in str(error.value)
  assert not (tmp_path / "cache").exists()


class TestSeveralWorkers:
  def test_give_what_one_gives(self, photos, tmp_path):
    for i in range(12, 40):
      (photos / f"{i % 9}-{i}.png").write_bytes(picture(i % 30))
    (photos / "bad.png").write_bytes(b"bad")
    given = inputs.open_input(str(photos))
    one, two, log = tmp_path / "1.parquet", tmp_path / "2.parquet", tmp_path / "log"
    first = run(given, one)
    settings = Settings(batch_size=4, max_side=16, workers=2)
    second = run(given, two, log, settings)
    assert one.read_bytes() == two.read_bytes()
    assert first.problems == second.problems and len(first.problems) == 1
    assert first.elements == second.elements
    # Each once, none in this process.
    data = [line[1] for line in seen(log)]
    assert len(data) == len(set(data)) == first.extracted
    assert str(os.getpid()) not in {line[0] for line in seen(log)}

  def test_that_die_are_named_with_the_way_out(self, photos, tmp_path):
    settings = Settings(batch_size=4, max_side=16, workers=2)
    given = inputs.open_input(str(photos))
    with pytest.raises(DataError, match="killed.*fewer --workers"):
      run(given, tmp_path / "p.parquet", maker=deadly, settings=settings)
    assert not (tmp_path / "p.parquet").exists()


class Deadly(Colours):
  def find(self, picture):
    if picture[0, 0, 0] == 7:
      os.kill(os.getpid(), signal.SIGKILL)
    return super().find(picture)


def deadly():
  return [Deadly()]


class TestMemory:
  def test_holds_few_rows_at_a_time(self, tmp_path, monkeypatch):
    """Rows that are read and not yet written, whatever their number in the file."""
    columns = {"p": [picture(i) for i in range(200)]}
    given = write(tmp_path / "t.parquet", columns)
    given = inputs.open_input(given, ["p"])
    alive = {"now": 0, "most": 0}
    make_chunk, make_table = chunks._chunk, output.file_rows

    def counted(*args):
      chunk = make_chunk(*args)
      alive["now"] += len(chunk)
      alive["most"] = max(alive.values())
      return chunk

    def written(batch, *args):
      alive["now"] -= batch.num_rows
      return make_table(batch, *args)

    monkeypatch.setattr(chunks, "_chunk", counted)
    monkeypatch.setattr(output, "file_rows", written)
    path = tmp_path / "sets.parquet"
    run(given, path, maker=colours_only)
    assert alive["now"] == 0
    assert alive["most"] <= (pipeline._AHEAD + 1) * SMALL.batch_size

  def test_closes_a_chunk_whose_pictures_are_large(self, tmp_path, monkeypatch):
    images = [picture(i) for i in range(20)]
    given = write(tmp_path / "t.parquet", {"p": images})
    given = inputs.open_input(given, ["p"])
    monkeypatch.setattr(chunks, "_BYTES", sum(map(len, images)) // 6)
    sizes = [len(chunk) for chunk in chunks.read_chunks(given, 16)]
    assert sum(sizes) == 20 and 1 < max(sizes) < 8
    path = tmp_path / "sets.parquet"
    run(given, path, maker=colours_only)
    want = [row["colours"] for row in by_loop(images, [None] * 20)]
    assert pq.read_table(path)["colours"].to_pylist() == want

  def test_writes_row_groups_of_some_size(self, tmp_path, monkeypatch):
    monkeypatch.setattr(output, "_GROUP_ROWS", 8)
    given = write(tmp_path / "t.parquet", {"t": [f"row {i}" for i in range(21)]})
    path = tmp_path / "sets.parquet"
    run(inputs.open_input(given, (), ["t"]), path, maker=words_only)
    file = pq.ParquetFile(path)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes == [8, 8, 5]


def test_a_range_of_rows_is_read(tmp_path):
  given = write(tmp_path / "t.parquet", {"t": [f"row {i}" for i in range(21)]})
  given = inputs.open_input(given, (), ["t"])
  for start, stop in [(0, 21), (3, 11), (20, 30), (5, 5)]:
    rows = [
      (chunk.row + i, text)
      for chunk in chunks.read_chunks(given, 4, start, stop)
      for i, text in enumerate(chunk.batch["t"].to_pylist())
    ]
    assert rows == [(i, f"row {i}") for i in range(start, min(stop, 21))]


def test_a_cache_that_is_emptied_meanwhile_is_named(photos, tmp_path):
  given = inputs.open_input(str(photos))

  def empty(rows):
    with cache.Cache(tmp_path / "cache") as other, other._connection:
      other._connection.execute("DELETE FROM found")

  run(given, tmp_path / "p.parquet", cache=tmp_path / "cache")
  with pytest.raises(DataError, match="row .*do not change the cache"):
    run(given, tmp_path / "p.parquet", cache=tmp_path / "cache", progress=empty)


@pytest.mark.parametrize("name", ["batch_size", "max_side", "workers"])
def test_settings_below_one_are_refused(name):
  with pytest.raises(ValueError, match=f"{name} is 0"):
    Settings(**{name: 0})


class TestTheCommand:
  # As the extractors of the registry, by their names there.
  CODE = (
    "import sys; sys.path.insert(0, 'tests/extraction')\n"
    "import extract_pipeline_test as test\n"
    "test.EXTRACTORS.update(image=test.Colours, sentences=test.Words)\n"
    "test.extract.define_flags()\n"
    "from absl import app\n"
    "app.run(test.extract.main)\n"
  )

  def run(self, *arguments):
    command = [sys.executable, "-c", self.CODE, *arguments]
    return subprocess.run(
      command, cwd=ROOT, capture_output=True, text=True, check=False
    )

  def test_extracts_and_says_what_it_did(self, photos, tmp_path):
    (photos / "bad.png").write_bytes(b"bad")
    path = tmp_path / "made" / "photos.parquet"
    arguments = [
      f"--input={photos}",
      f"--output={path}",
      "--extractors=image,sentences",
      "--workers=1",
      "--config.max_side=16",
    ]
    done = self.run(*arguments)
    assert done.returncode == 0, done.stderr
    rows = found_in(path)
    assert len(rows) == 14
    for name in NAMES:
      assert f"{sum(len(r[name] or ()) for r in rows)} {name}" in done.stdout
    assert f"{path}: 14 rows" in done.stdout and "19 results found" in done.stdout
    assert "licence of words: none needed" in done.stdout
    assert "1 problems" in done.stdout and "path 'bad.png'" in done.stdout
    assert (tmp_path / "made" / "photos.parquet.cache").is_dir()
    again = self.run(*arguments, f"--cache={path}.cache")
    assert "0 results found, 19 from the cache" in again.stdout

  @pytest.mark.parametrize(
    ("arguments", "named"),
    [
      (["--extractors=nose"], "no extractor 'nose'; choose from image, regions"),
      (["--extractors=onnx"], "--config.onnx.path=FILE"),
      (["--config.max_sid=3"], "max_side"),
      (["--config.batch_size=0"], "batch_size is 0"),
      (["--input=nowhere.parquet"], "nowhere.parquet"),
      (["stray"], "stray"),
    ],
  )
  def test_refuses_what_is_wrong_before_any_work(
    self, photos, tmp_path, arguments, named
  ):
    path = tmp_path / "photos.parquet"
    done = self.run(f"--input={photos}", f"--output={path}", *arguments)
    assert done.returncode != 0 and named in done.stderr + done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


class TestConfigs:
  def test_have_the_defaults_of_the_extractors(self):
    config = base.get_config()
    made = {
      "image": efficientnet.Image,
      "regions": regions.Regions,
      "faces": faces.Faces,
      "lines": lines.Lines,
      "sentences": texts.Sentences,
      "static_words": texts.StaticWords,
      "onnx": network.Onnx,
    }
    assert made.keys() == EXTRACTORS.keys()
    for name, kind in made.items():
      legal = inspect.signature(kind).parameters
      if not legal:
        assert name not in config
        continue
      assert set(config[name]) == set(legal), name
      for key, value in config[name].items():
        default = legal[key].default
        assert value == (None if default is inspect.Parameter.empty else default), key

  def test_say_what_every_setting_is(self):
    source = inspect.getsource(base).splitlines()
    settings = [
      number
      for number, line in enumerate(source)
      if "=" in line and not line.endswith("(") and "ConfigDict()" not in line
      if not line.strip().startswith(("#", '"'))
    ]
    assert len(settings) > 15
    for number in settings:
      assert source[number - 1].strip().startswith("#"), source[number]

  def test_become_what_builds_the_extractors(self):
    config = onnx.get_config()
    with pytest.raises(ValueError, match=r"--config\.onnx\.path=FILE"):
      extract.maker(config, 1)
    config.onnx.update(path="network.onnx", size=(32, 48))
    names, settings = extract.maker(config, 1).args
    assert names == ("onnx",)
    given = settings["onnx"]
    assert (given["path"], given["size"]) == ("network.onnx", (32, 48))
    assert "layout" not in given and "threads" not in given
    # Several workers share the cores.
    _, settings = extract.maker(config, worker.available_cores()).args
    assert settings["onnx"].get("threads", 1) == 1
