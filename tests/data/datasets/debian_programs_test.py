import gzip
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

from deepsets_jax.data.datasets import debian_programs
from deepsets_jax.data.tables import parquet
from deepsets_jax.foundation.errors import DataError
from tools import build_debian_programs

TOKENS = ("summary", "description", "depends", "recommends", "suggests", "name")


@pytest.fixture(scope="module")
def programs():
  """The embedded file, as lists of strings."""
  return pq.read_table(debian_programs.PATH).to_pydict()


@pytest.fixture(scope="module")
def tables():
  return debian_programs.load_debian_programs(0, text="bag")


@pytest.fixture(scope="module")
def ordered():
  return debian_programs.load_debian_programs(0)


@pytest.fixture(scope="module")
def vocabularies():
  return debian_programs.vocabularies(0)


class TestEmbeddedFile:
  def test_holds_the_benchmark(self, programs):
    assert len(programs["package"]) == len(set(programs["package"])) == 7453
    assert len(set(programs["source"])) == 6055
    labels = [label for labels in programs["labels"] for label in labels]
    assert len(set(labels)) == 74
    assert len(labels) == 28802  # 3.86 labels per program.
    assert {
      label.partition("::")[0] for label in labels
    } <= build_debian_programs.FACETS
    assert min(len(labels) for labels in programs["labels"]) == 1

  def test_holds_no_other_tag_and_no_section(self, programs):
    assert list(programs) == [
      "package",
      "source",
      "summary",
      "description",
      "depends",
      "recommends",
      "suggests",
      "size_kb",
      "labels",
    ]

  def test_is_small_and_says_where_it_is_from(self):
    assert debian_programs.PATH.stat().st_size < 3e6
    metadata = pq.read_schema(debian_programs.PATH).metadata
    assert b"Debian" in metadata[b"origin"]
    assert b"free licences" in metadata[b"licence"]

  def test_a_description_begins_with_its_summary(self, programs):
    for summary, words in zip(
      programs["summary"], programs["description"], strict=True
    ):
      assert summary == words[: len(summary)]

  def test_words_are_in_their_order(self, programs):
    words = programs["description"][programs["package"].index("wget")]
    assert words[:5] == ["retrieves", "files", "from", "the", "web"]


class TestSplits:
  def test_are_those_of_shuffled_sources(self, programs, tables):
    sources = sorted(set(programs["source"]))
    np.random.default_rng(0).shuffle(sources)
    a, z = int(0.7 * len(sources)), int(0.8 * len(sources))
    parts = {"train": sources[:a], "validation": sources[a:z], "test": sources[z:]}
    assert list(tables) == list(parts)
    for split, part in parts.items():
      part = set(part)
      want = [
        package
        for package, source in zip(programs["package"], programs["source"], strict=True)
        if source in part
      ]
      assert tables[split].ids.tolist() == want

  def test_have_one_schema_and_are_valid(self, tables):
    for split, table in tables.items():
      assert table.validate(split).schema == tables["train"].schema
    modalities = table.schema.modalities
    assert tuple(modalities) == (*TOKENS, "size")
    assert all(modalities[name].weighted for name in TOKENS)
    for name in TOKENS:
      assert table.modalities[name].values.dtype == np.int32
      assert table.modalities[name].weights.dtype == np.float32

  def test_another_seed_is_another_split_and_vocabulary(self, tables):
    other = debian_programs.load_debian_programs(1, text="bag")
    assert other["test"].ids.tolist() != tables["test"].ids.tolist()
    assert other["test"].schema != tables["test"].schema


def test_targets_are_the_labels(programs, tables):
  labels = dict(zip(programs["package"], programs["labels"], strict=True))
  for table in tables.values():
    names = np.array(table.schema.target.names)
    assert names.tolist() == sorted(names)
    for package, row in zip(table.ids.tolist(), table.targets, strict=True):
      assert names[row == 1].tolist() == sorted(labels[package])


def strings(table, name, vocabularies):
  vocabulary = np.array(vocabularies[name])
  return [vocabulary[ids].tolist() for ids in table.modalities[name].to_lists()]


def lists_of(programs, name):
  """The tokens of each program by package, before any vocabulary."""
  if name != "name":
    return dict(zip(programs["package"], programs[name], strict=True))
  return {package: name_tokens(package) for package in programs["package"]}


def name_tokens(package):
  marked = f"<{package}>"
  tokens = ["=" + part for part in package.split("-")]
  for size in (3, 4):
    tokens += [marked[i:][:size] for i in range(len(marked)) if len(marked[i:]) >= size]
  return list(dict.fromkeys(tokens))


@pytest.mark.parametrize("name", TOKENS)
def test_pooled_weights_are_those_of_scikit_learn(name, programs, tables, vocabularies):
  tokens = lists_of(programs, name)
  lists = {
    split: [tokens[i] for i in table.ids.tolist()] for split, table in tables.items()
  }
  counter = CountVectorizer(analyzer=lambda words: words, min_df=2)
  counts = counter.fit_transform(lists["train"])
  assert set(counter.vocabulary_) == set(vocabularies[name])
  transformer = TfidfTransformer(sublinear_tf=True, smooth_idf=True).fit(counts)
  columns = [counter.vocabulary_[token] for token in vocabularies[name]]
  for split, table in tables.items():
    want = transformer.transform(counter.transform(lists[split])).tocsr()[:, columns]
    want.sort_indices()
    got = table.modalities[name]
    # A bag has each token once, so elements are the entries of the sparse matrix.
    np.testing.assert_array_equal(got.offsets, want.indptr)
    order = np.lexsort([got.values, np.repeat(np.arange(len(table)), got.lengths)])
    np.testing.assert_array_equal(got.values[order], want.indices)
    np.testing.assert_allclose(got.weights[order], want.data, rtol=1e-5)


class TestOrder:
  def test_description_has_the_words_of_the_vocabulary_in_order(
    self, programs, ordered, vocabularies
  ):
    known = set(vocabularies["description"])
    tokens = lists_of(programs, "description")
    for table in ordered.values():
      for package, words in zip(
        table.ids.tolist(), strings(table, "description", vocabularies), strict=True
      ):
        assert words == [word for word in tokens[package] if word in known]

  def test_occurrences_of_a_word_share_its_weight(self, ordered, tables):
    for split, table in ordered.items():
      size = table.schema.modalities["description"].size
      sums = []
      for ragged in (
        table.modalities["description"],
        tables[split].modalities["description"],
      ):
        rows = np.repeat(np.arange(len(table)), ragged.lengths)
        pairs, inverse = np.unique(rows * size + ragged.values, return_inverse=True)
        sums.append((pairs, np.bincount(inverse, ragged.weights)))
        spread = np.bincount(inverse, ragged.weights**2) * np.bincount(inverse)
        np.testing.assert_allclose(spread, sums[-1][1] ** 2, rtol=1e-4)  # All equal.
      np.testing.assert_array_equal(sums[0][0], sums[1][0])
      np.testing.assert_allclose(sums[0][1], sums[1][1], rtol=1e-5)
      assert table.modalities["description"].num_slots > len(sums[0][0])

  def test_other_modalities_are_the_same(self, ordered, tables):
    for split, table in ordered.items():
      for name in (*TOKENS[2:], "size"):
        a, b = table.modalities[name], tables[split].modalities[name]
        np.testing.assert_array_equal(a.values, b.values)
        np.testing.assert_array_equal(a.weights, b.weights)


def test_names_are_described_by_their_pieces(tables, vocabularies):
  known = set(vocabularies["name"])
  for table in tables.values():
    names = zip(table.ids.tolist(), strings(table, "name", vocabularies), strict=True)
    for package, tokens in names:
      assert sorted(tokens) == sorted(known & set(name_tokens(package)))
  assert {"=games", "<ga", "<gam", "es>"} <= known


def test_size_is_standardised_on_the_training_part(programs, tables):
  size = dict(zip(programs["package"], programs["size_kb"], strict=True))
  logs = {k: np.log1p([size[i] for i in t.ids.tolist()]) for k, t in tables.items()}
  mean, deviation = logs["train"].mean(), logs["train"].std()
  for split, table in tables.items():
    got = table.modalities["size"]
    assert got.lengths.tolist() == [1] * len(table)
    want = (logs[split] - mean) / deviation
    np.testing.assert_allclose(got.values[:, 0], want, rtol=1e-4, atol=1e-5)


def test_modalities_are_absent_as_in_the_index(tables):
  table = tables["train"]
  absent = {name: float((table.lengths(name) == 0).mean()) for name in TOKENS}
  assert absent["recommends"] > 0.7
  assert absent["suggests"] > 0.7
  assert 0 < absent["depends"] < 0.1
  assert absent["name"] < 0.01  # A name of one or two letters may have no known piece.


def test_an_unknown_form_of_the_text_is_named():
  with pytest.raises(ValueError, match="text 'bigrams'; one of .*'words'"):
    debian_programs.load_debian_programs(0, text="bigrams")


class TestVocabulary:
  def test_is_smaller_for_a_larger_frequency(self, vocabularies):
    small = debian_programs.vocabularies(0, min_document_frequency=5)
    large = debian_programs.vocabularies(0, min_document_frequency=1)
    for name in TOKENS:
      assert set(small[name]) < set(vocabularies[name]) < set(large[name])
      assert len(set(large[name])) == len(large[name])

  def test_no_token_frequent_enough_is_an_error(self):
    with pytest.raises(DataError, match="'summary': no token is in 3000 training"):
      debian_programs.load_debian_programs(0, min_document_frequency=3000)

  def test_frequency_below_one_is_refused(self):
    with pytest.raises(
      ValueError, match="min_document_frequency 0: expected at least 1"
    ):
      debian_programs.load_debian_programs(0, min_document_frequency=0)


@pytest.mark.slow
def test_loads_in_less_than_two_seconds():
  seconds = []
  for _ in range(3):
    start = time.perf_counter()
    debian_programs.load_debian_programs(0)
    seconds.append(time.perf_counter() - start)
  assert min(seconds) < 2


class TestDamagedFile:
  ADVICE = r"rebuild it with python -m tools\.build_debian_programs"

  def content(self):
    return bytearray(debian_programs.PATH.read_bytes())

  def refuse(self, content, tmp_path, monkeypatch, message):
    path = tmp_path / "programs.parquet"
    if content is not None:
      path.write_bytes(content)
    monkeypatch.setattr(debian_programs, "PATH", path)
    with pytest.raises(DataError, match=rf"programs\.parquet.*{message}"):
      debian_programs.load_debian_programs(0)
    with pytest.raises(DataError, match=self.ADVICE):
      debian_programs.vocabularies(0)

  @pytest.mark.parametrize("share", [0, 0.5, 0.999])
  def test_truncated(self, share, tmp_path, monkeypatch):
    content = self.content()
    content = content[: int(share * len(content))]
    self.refuse(content, tmp_path, monkeypatch, "truncated or damaged")

  def test_a_flipped_bit(self, tmp_path, monkeypatch):
    content = self.content()
    content[len(content) // 2] ^= 1
    self.refuse(content, tmp_path, monkeypatch, "truncated or damaged")

  def test_missing(self, tmp_path, monkeypatch):
    self.refuse(None, tmp_path, monkeypatch, "missing")

  def test_another_format(self, tmp_path, monkeypatch):
    other = tmp_path / "other.parquet"
    table = pq.read_table(debian_programs.PATH)
    pq.write_table(table.replace_schema_metadata({"format": "older"}), other)
    self.refuse(other.read_bytes(), tmp_path, monkeypatch, "format 'older', expected")


STANZA = """\
Package: {name}
Source: suite{suite} (1.2-3)
Installed-Size: {size}
Pre-Depends: dpkg (>= 1.15.6~)
Depends: libc6 (>= 2.34), default-mta | mail-agent:any, libc6 (<< 3) [amd64]
Description: a summary that the translation replaces
Description-md5: {name}md5
Tag: interface::commandline, role::program,
 {tag},
 suite::gnu
Section: web

"""
TRANSLATION = """\
Package: {name}
Description-md5: {name}md5
Description-en: Edits C++ text
 It edits, and
 edits again.
 .
 * {name} for C#

"""
PACKAGE = dict(
  name="p",
  source="s",
  text="",
  depends=[],
  recommends=[],
  suggests=[],
  size_kb=1,
  tags=["role::program", "use::editing"],
)


def write_lists(folder, count=120):
  """Writes apt's lists of programs: 20 viewers, and editors."""
  stanzas = [
    STANZA.format(
      name=f"tool{i:03}",
      suite=i // 2,
      size=i,
      tag="use::editing" if i < count - 20 else "use::viewing",
    )
    for i in range(count)
  ]
  stanzas.append("Package: library\nDescription: no program\nTag: role::shared-lib\n\n")
  (folder / "mirror_main_binary-amd64_Packages").write_text("".join(stanzas))
  texts = "".join(TRANSLATION.format(name=f"tool{i:03}") for i in range(count))
  with gzip.open(folder / "mirror_main_i18n_Translation-en.gz", "wt") as file:
    file.write(texts)


class TestBuilder:
  def test_of_apts_lists(self, tmp_path, capsys):
    lists = tmp_path / "lists"
    lists.mkdir()
    write_lists(lists)
    output = tmp_path / "new" / "programs.parquet"
    build_debian_programs.main([f"--input={lists}", f"--output={output}"])
    assert "120 programs of 60 source packages, 2 labels" in capsys.readouterr().out
    rows = pq.read_table(output).to_pylist()
    assert rows[7] == {
      "package": "tool007",
      "source": "suite3",
      "summary": "edits c++ text".split(),
      "description": "edits c++ text it edits and edits again tool007 for c#".split(),
      "depends": ["default-mta", "dpkg", "libc6", "mail-agent"],
      "recommends": [],
      "suggests": [],
      "size_kb": 7,
      "labels": ["interface::commandline", "use::editing"],
    }
    # Twenty viewers are too few for a label.
    assert rows[119]["labels"] == ["interface::commandline"]
    assert [p.name for p in output.parent.iterdir()] == ["programs.parquet"]

  def test_written_files_load(self, tmp_path, monkeypatch):
    packages = [
      build_debian_programs.Package(
        **PACKAGE
        | dict(
          name=f"tool{i:03}",
          source=f"tool{i:03}",
          text="edits text",
          depends=["libc6"],
          recommends=["editor"],
          suggests=["viewer"],
          size_kb=None if i % 2 else i,
        )
      )
      for i in range(100)
    ]
    path = tmp_path / "programs.parquet"
    build_debian_programs.write(build_debian_programs.build(packages), path)
    monkeypatch.setattr(debian_programs, "PATH", path)
    tables = debian_programs.load_debian_programs(0)
    assert sum(len(table) for table in tables.values()) == 100
    for split, table in tables.items():
      table.validate(split)
      known = [int(name.removeprefix("tool")) % 2 == 0 for name in table.ids]
      # An unknown size is absent.
      assert table.lengths("size").tolist() == [int(k) for k in known]

  def test_the_bytes_do_not_depend_on_the_order_of_packages(self, tmp_path):
    packages = [
      build_debian_programs.Package(
        **PACKAGE | dict(name=f"p{i}", text=f"word{i % 7} c++", depends=[f"d{i % 3}"])
      )
      for i in range(150)
    ]
    build_debian_programs.write(build_debian_programs.build(packages), tmp_path / "a")
    build_debian_programs.write(
      build_debian_programs.build(packages[::-1]), tmp_path / "b"
    )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

  def test_the_embedded_programs_are_reproduced(self, programs):
    """The builder reproduces the embedded file from its contents."""
    packages = [
      build_debian_programs.Package(
        name=package,
        source=programs["source"][i],
        text=" ".join(programs["summary"][i])
        + "\n"
        + " ".join(programs["description"][i][len(programs["summary"][i]) :]),
        depends=programs["depends"][i],
        recommends=programs["recommends"][i],
        suggests=programs["suggests"][i],
        size_kb=programs["size_kb"][i],
        tags=["role::program", *programs["labels"][i]],
      )
      for i, package in enumerate(programs["package"])
    ]
    table = build_debian_programs.build(packages)
    assert table.to_pydict() == programs
    assert table.schema.metadata == pq.read_schema(debian_programs.PATH).metadata

  def test_the_first_of_packages_with_one_name_counts(self):
    packages = [
      build_debian_programs.Package(**PACKAGE | dict(name=f"p{i % 100}", size_kb=i))
      for i in range(150)
    ]
    table = build_debian_programs.build(packages)
    assert sorted(table["size_kb"].to_pylist()) == list(range(100))

  def test_a_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
    path = tmp_path / "programs.parquet"
    path.write_bytes(b"old")

    def fail(table, where, **_):
      where.write_bytes(b"half")
      raise OSError("disk full")

    monkeypatch.setattr(parquet.pq, "write_table", fail)
    packages = [
      build_debian_programs.Package(**PACKAGE | {"name": f"p{i}"}) for i in range(100)
    ]
    with pytest.raises(OSError, match="disk full"):
      build_debian_programs.write(build_debian_programs.build(packages), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]

  def test_too_few_programs_are_refused(self):
    packages = [
      build_debian_programs.Package(**PACKAGE | {"name": f"p{i}"}) for i in range(99)
    ]
    with pytest.raises(DataError, match="none of the tags of 99 packages"):
      build_debian_programs.build(packages)

  def test_bad_input_is_named(self, tmp_path):
    with pytest.raises(
      DataError, match=r"no list \*Translation-en; run apt-get update"
    ):
      build_debian_programs.read_packages(str(tmp_path))
    write_lists(tmp_path)
    lists = tmp_path / "mirror_main_binary-amd64_Packages"
    content = lists.read_text()
    lists.write_text(content + "no field\n")
    with pytest.raises(
      DataError, match=r"Packages, line \d+: 'no field' is not 'Field"
    ):
      build_debian_programs.read_packages(str(tmp_path))
    lists.rename(f"{lists}.lz4")
    with pytest.raises(DataError, match=r"Packages\.lz4 is compressed"):
      build_debian_programs.read_packages(str(tmp_path))
    with pytest.raises(
      DataError, match=r"is not a Parquet file .* folder of apt's lists"
    ):
      build_debian_programs.read_packages(f"{lists}.lz4")
    with pytest.raises(DataError, match="absent is not a Parquet file"):
      build_debian_programs.read_packages(str(tmp_path / "absent"))
    with pytest.raises(DataError, match="no column 'paragraphs'"):
      build_debian_programs.read_packages(str(debian_programs.PATH))
