"""Results of extractors, with real weights if the extra `extract` is installed."""

import importlib
import json
import math
import os
import struct
import subprocess
import sys

import numpy as np
import pytest

from deepsets_jax import extraction
from deepsets_jax.extraction import boxes, efficientnet, regions, registry
from deepsets_jax.extraction.drawing import draw_extractions
from deepsets_jax.foundation.errors import DataError

PICTURES = ("astronaut", "chelsea", "coffee", "page")


def random_boxes(rng, count):
  corners = np.sort(rng.uniform(size=(count, 2, 2)), axis=1)
  return corners.reshape(count, 4).astype(np.float32)


def overlap(a, b):
  width = min(a[2], b[2]) - max(a[0], b[0])
  height = min(a[3], b[3]) - max(a[1], b[1])
  both = max(width, 0) * max(height, 0)
  areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
  return both / (sum(areas) - both)


class TestBoxes:
  def test_overlaps_are_those_of_a_loop_over_pairs(self):
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 7), random_boxes(rng, 5)
    want = [[overlap(x, y) for y in b] for x in a]
    np.testing.assert_allclose(boxes.intersection_over_union(a, b), want, atol=1e-6)
    assert np.count_nonzero(want) > 5

  def test_boxes_of_no_area_overlap_nothing(self):
    empty = np.array([[0.2, 0.2, 0.2, 0.9]], np.float32)
    assert boxes.intersection_over_union(empty, empty) == 0

  @pytest.mark.parametrize("limit", [0.0, 0.2, 0.5, 1.0])
  def test_suppression_keeps_the_best_that_no_better_one_covers(self, limit):
    rng = np.random.default_rng(1)
    places, scores = random_boxes(rng, 30), rng.uniform(size=30)
    want = []
    for i in np.argsort(-scores):
      if all(overlap(places[i], places[k]) <= limit for k in want):
        want.append(i)
    found = boxes.suppress_overlaps(places, scores, overlap=limit, count=100)
    assert found.tolist() == want
    assert (
      boxes.suppress_overlaps(places, scores, overlap=limit, count=3).tolist()
      == want[:3]
    )

  def test_suppression_of_nothing_is_nothing(self):
    none = np.zeros((0, 4), np.float32)
    assert (
      boxes.suppress_overlaps(none, np.zeros(0), overlap=0.5, count=3).tolist() == []
    )

  def test_shares_are_cut_at_the_edges(self):
    picture = np.zeros((10, 20, 3), np.uint8)
    found = boxes.relative_boxes(np.array([[-3, 2, 30, 5]]), picture)
    np.testing.assert_allclose(found, [[0, 0.2, 1, 0.5]])
    assert boxes.relative_boxes(np.zeros((0, 4)), picture).shape == (0, 4)

  @pytest.mark.parametrize(
    "bad",
    [
      np.zeros((4, 4), np.uint8),
      np.zeros((4, 4, 4), np.uint8),
      np.zeros((4, 4, 3), np.float32),
      np.zeros((0, 4, 3), np.uint8),
      "cat.jpg",
    ],
  )
  def test_an_input_that_is_not_a_picture_is_named(self, bad):
    with pytest.raises(ValueError, match=r"picture 1 .* expected uint8 \[h, w, 3\]"):
      boxes.check_pictures([np.zeros((1, 1, 3), np.uint8), bad])


class TestWindows:
  @pytest.mark.parametrize(
    "shape", [(300, 300), (200, 450), (1, 1), (7, 5000), (900, 2)]
  )
  def test_cover_the_picture_and_stay_in_it(self, shape):
    found = regions.windows(*shape)
    assert found.min() >= 0 and found.max() <= 1
    assert (found[:, 2:] > found[:, :2]).all()
    assert (found[:, :2].min(0) == 0).all() and (found[:, 2:].max(0) > 1 - 1e-6).all()

  def test_are_square_and_half_over_one_another(self):
    found = regions.windows(200, 450) * [450, 200, 450, 200]
    sides = found[:, 2:] - found[:, :2]
    np.testing.assert_allclose(sides[:, 0], sides[:, 1], rtol=1e-5)
    sizes = np.unique(sides[:, 0].round(3))
    np.testing.assert_allclose(sizes, [66, 100, 150])
    for size in sizes:
      lefts = np.unique(found[np.isclose(sides[:, 0], size), 0])
      assert (np.diff(lefts) <= size / 2 + 1e-3).all()


class TestCrops:
  def test_of_plain_halves_have_their_colour(self):
    picture = np.zeros((50, 80, 3), np.uint8)
    picture[:, 40:] = 200, 100, 50
    places = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 1]], np.float32)
    dark, light = efficientnet.crops(picture, places)
    assert dark.shape == light.shape == (224, 224, 3)
    assert (dark == 0).all() and (light == [200, 100, 50]).all()

  def test_of_no_width_are_a_pixel_wide(self):
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    (found,) = efficientnet.crops(picture, np.array([[1, 1, 1, 1]], np.float32))
    assert (found == picture[1, 1]).all()


def random_tensors(rng):
  """Of a network with few channels, by the names in the real file."""
  tensors = {}

  def convolution(name, norm, outputs, inputs, size):
    scale = 2 / math.sqrt(inputs * size * size)  # Signals do not fade.
    tensors[f"{name}.weight"] = rng.normal(0, scale, (outputs, inputs, size, size))
    tensors[f"{norm}.weight"] = rng.uniform(0.5, 1.5, outputs)
    tensors[f"{norm}.bias"] = rng.normal(0, 0.3, outputs)
    tensors[f"{norm}.running_mean"] = rng.normal(0, 0.3, outputs)
    tensors[f"{norm}.running_var"] = rng.uniform(0.5, 1.5, outputs)

  convolution("_conv_stem", "_bn0", 4, 3, 3)
  for i, (size, outputs) in enumerate(SIZES):
    block, inputs = f"_blocks.{i}", 4 if i == 0 else SIZES[i - 1][1]
    within = inputs if i == 0 else 2 * inputs
    if i > 0:
      convolution(f"{block}._expand_conv", f"{block}._bn0", within, inputs, 1)
    convolution(f"{block}._depthwise_conv", f"{block}._bn1", within, 1, size)
    convolution(f"{block}._project_conv", f"{block}._bn2", outputs, within, 1)
  convolution("_conv_head", "_bn1", 6, SIZES[-1][1], 1)
  tensors["_fc.weight"] = rng.normal(size=(5, 6))
  tensors["_fc.bias"] = rng.normal(size=5)
  return {name: value.astype(np.float32) for name, value in tensors.items()}


# Kernel size and channels of each block, the latter made small.
SIZES = [(3, 2), *[(3, 3)] * 2, *[(5, 2)] * 2, *[(3, 4)] * 3, *[(5, 3)] * 3]
SIZES += [*[(5, 2)] * 4, (3, 3)]
STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]


def reference(tensors, picture):
  """The vector and logits of one picture `[h, w, 3]`, in float64, a place at a time."""
  t = {name: value.astype(np.float64) for name, value in tensors.items()}

  def convolve(name, x, stride=1):
    kernel = t[f"{name}.weight"]  # [outputs, inputs, size, size]
    size, depthwise = kernel.shape[2], "depthwise" in name
    places = [math.ceil(length / stride) for length in x.shape[:2]]
    pads = [
      max((n - 1) * stride + size - length, 0)
      for n, length in zip(places, x.shape[:2], strict=True)
    ]
    x = np.pad(x, [*[(pad // 2, pad - pad // 2) for pad in pads], (0, 0)])
    y = np.zeros((*places, len(kernel)))
    for i in range(places[0]):
      for j in range(places[1]):
        patch = x[i * stride : i * stride + size, j * stride : j * stride + size]
        rule = "hwo,ohw->o" if depthwise else "hwi,oihw->o"
        y[i, j] = np.einsum(rule, patch, kernel[:, 0] if depthwise else kernel)
    return y

  def norm(name, x):
    x = (x - t[f"{name}.running_mean"]) / np.sqrt(t[f"{name}.running_var"] + 1e-3)
    return x * t[f"{name}.weight"] + t[f"{name}.bias"]

  def relu6(x):
    return np.minimum(np.maximum(x, 0), 6)

  x = relu6(norm("_bn0", convolve("_conv_stem", (picture - 127.0) / 128, 2)))
  for i, stride in enumerate(STRIDES):
    block, y = f"_blocks.{i}", x
    if i > 0:
      y = relu6(norm(f"{block}._bn0", convolve(f"{block}._expand_conv", y)))
    y = relu6(norm(f"{block}._bn1", convolve(f"{block}._depthwise_conv", y, stride)))
    y = norm(f"{block}._bn2", convolve(f"{block}._project_conv", y))
    x = x + y if stride == 1 and y.shape == x.shape else y
  vector = relu6(norm("_bn1", convolve("_conv_head", x))).mean((0, 1))
  return vector, t["_fc.weight"] @ vector + t["_fc.bias"]


class TestNetwork:
  def test_equals_a_loop_over_places(self):
    rng = np.random.default_rng(0)
    tensors = random_tensors(rng)
    # An odd side, so that padding differs with the layer.
    pictures = rng.integers(0, 256, (2, 40, 37, 3), np.uint8)
    found = efficientnet.forward(efficientnet.fold_batch_norm(tensors), pictures)
    want = [reference(tensors, picture) for picture in pictures]
    for got, expected in zip(found, zip(*want, strict=True), strict=True):
      np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert np.std(want[0][0] - want[1][0]) > 1e-3

  def test_a_file_of_another_network_is_named(self, tmp_path, monkeypatch):
    monkeypatch.setattr(efficientnet.weights, "read_state_dict", lambda path: {})
    with pytest.raises(DataError, match=r"x\.pth has no tensor '_.*not an Effic"):
      efficientnet.load_network(tmp_path / "x.pth")


class TestFigure:
  def test_shows_each_box_and_lists_each_element(self):
    faces = extraction.Extraction(
      np.zeros((2, 128), np.float32),
      boxes=np.array([[0.25, 0.5, 0.5, 1], [0, 0, 1, 0.5]], np.float32),
      scores=np.array([1.5, 0.25], np.float32),
    )
    words = extraction.Extraction(
      np.zeros((9, 4), np.float32), strings=["a$x$", *"bcdefghi"]
    )
    none = extraction.Extraction(np.zeros((0, 3), np.float32), strings=[])
    image = np.zeros((40, 80, 3), np.uint8)
    figure = draw_extractions(
      [(image, {"faces": faces, "words": words, "lines": none})]
    )
    figure.draw_without_rendering()
    rectangles = [tuple(x.get_bbox().bounds) for x in figure.axes[0].patches]
    assert rectangles == [(20, 20, 20, 20), (0, 0, 80, 20)]
    assert [x.get_text() for x in figure.axes[0].texts] == ["1", "2"]
    listed = [x.get_text() for x in figure.texts]
    assert listed[:4] == [
      "faces: 2 x 128 numbers",
      "1  1.50",
      "2  0.25",
      "words: 9 x 4 numbers",
    ]
    assert listed[4:6] == ["1  a$x$", "2  b"]
    assert listed[-2:] == ["and 1 more", "lines: none"]
    places = [x.get_position()[1] for x in figure.texts]
    assert places == sorted(places, reverse=True) and places[-1] > 0

  def test_of_several_pictures_gives_a_modality_one_colour(self):
    one = extraction.Extraction(
      np.zeros((1, 2), np.float32), boxes=np.zeros((1, 4), np.float32)
    )
    image = np.zeros((40, 80, 3), np.uint8)
    samples = [(image, {"a": one, "b": one}), (image[:, :20], {"b": one})]
    first, second = draw_extractions(samples).axes
    a, b = (x.get_edgecolor() for x in first.patches)
    assert a != b == second.patches[0].get_edgecolor()


class TestRegistry:
  def test_an_unknown_name_gets_the_list(self):
    with pytest.raises(
      ValueError, match=r"no extractor 'face'; choose from image, .*faces"
    ):
      extraction.build_extractor("face")

  def test_a_missing_package_gets_the_extra(self, monkeypatch):
    def make(**settings):
      importlib.import_module("no_such_module")

    monkeypatch.setattr(registry, "EXTRACTORS", {"faces": make})
    advice = r"'faces': No module named 'no_such_module': pip install 'deepsets-jax\["
    with pytest.raises(ModuleNotFoundError, match=advice) as raised:
      extraction.build_extractor("faces")
    assert raised.value.name == "no_such_module"

  def test_importing_it_imports_no_extractor(self):
    code = "import sys, deepsets_jax.extraction; print(*sys.modules)"
    result = subprocess.run(
      [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    found = result.stdout.split()
    assert "deepsets_jax.extraction.registry" in found
    own = {
      f"deepsets_jax.extraction.{name}" for name in ("efficientnet", "faces", "lines")
    }
    assert not {"PIL", "dlib", "onnxruntime", *own}.intersection(found)


# From here on with the real weights.


@pytest.fixture(scope="module")
def pictures():
  data = pytest.importorskip("skimage.data")
  found = {name: getattr(data, name)() for name in PICTURES}
  found["page"] = np.repeat(found["page"][..., None], 3, axis=2)
  return found


def build_or_skip(name, **settings):
  try:
    return extraction.build_extractor(name, **settings)
  except (ModuleNotFoundError, FileNotFoundError) as error:
    pytest.skip(str(error))


@pytest.fixture(scope="module")
def image():
  return build_or_skip("image")


@pytest.fixture(scope="module")
def faces():
  return build_or_skip("faces")


@pytest.fixture(scope="module")
def lines():
  return build_or_skip("lines", encoder="static_words")


class TestImage:
  def test_knows_the_cat_and_the_coffee(self, image, pictures):
    cat, coffee = image([pictures["chelsea"], pictures["coffee"]])
    assert (cat.strings, coffee.strings) == (["Egyptian cat"], ["espresso"])
    np.testing.assert_allclose(cat.scores, [0.77], atol=0.01)
    assert cat.vectors.shape == (1, 1280) and cat.vectors.dtype == np.float32
    assert cat.boxes is None

  def test_batch_mates_and_padding_do_not_matter(self, image, pictures):
    batch = list(pictures.values())
    many = image(batch * 3)
    for i, picture in enumerate(batch * 3):
      (alone,) = image([picture])
      np.testing.assert_allclose(many[i].vectors, alone.vectors, rtol=1e-3, atol=1e-4)
    assert image([]) == []


class TestRegions:
  def test_lie_in_the_picture_and_are_sure(self, pictures):
    extractor = build_or_skip("regions", count=5)
    for found in extractor([pictures["astronaut"], pictures["coffee"]]):
      assert 1 <= len(found.vectors) == len(found.strings) <= 5
      assert found.boxes.min() >= 0 and found.boxes.max() <= 1
      assert (found.boxes[:, :2] < found.boxes[:, 2:]).all()
      assert (np.diff(found.scores) <= 0).all() and found.scores[-1] >= 0.4
      apart = boxes.intersection_over_union(found.boxes, found.boxes) - np.eye(
        len(found.boxes)
      )
      assert apart.max() <= 0.2 + 1e-6
    assert found.strings[0] == "espresso"

  def test_of_a_plain_picture_there_are_none(self):
    (found,) = build_or_skip("regions")([np.full((60, 80, 3), 90, np.uint8)])
    assert found.vectors.shape == (0, 1280) and found.boxes.shape == (0, 4)
    assert found.strings == [] and found.scores.shape == (0,)

  def test_settings_out_of_range_are_named(self):
    with pytest.raises(ValueError, match="count=0"):
      extraction.build_extractor("regions", count=0)


class TestFaces:
  def test_the_astronaut_has_one_and_the_coffee_none(self, faces, pictures):
    found, none = faces([pictures["astronaut"], pictures["coffee"]])
    assert found.vectors.shape == (1, 128) and none.vectors.shape == (0, 128)
    assert none.boxes.shape == (0, 4) and none.scores.shape == (0,)
    left, top, right, bottom = found.boxes[0] * 512
    # Eyes and mouth lie within, and not much else.
    assert 160 < left < 195 and 245 < right < 290
    assert 60 < top < 95 and 150 < bottom < 190

  def test_one_person_is_nearer_than_any_other(self, faces, pictures):
    whole = pictures["astronaut"]
    larger = np.kron(whole[40:260, 120:340], np.ones((2, 2, 1), np.uint8))
    turned, dark = whole[:, ::-1], (whole * 0.6).astype(np.uint8)
    first, *others = [faces([x])[0].vectors[0] for x in (whole, larger, turned, dark)]
    same = max(np.linalg.norm(first - other) for other in others)
    assert same < 0.3
    # Faces of 25 pixels, made larger: less alike than the same face, by far.
    small = pytest.importorskip("skimage.data").lfw_subset()[:20]
    greys = [(np.kron(x, np.ones((10, 10))) * 255).astype(np.uint8) for x in small]
    found = faces([np.repeat(grey[..., None], 3, axis=2) for grey in greys])
    distances = [np.linalg.norm(first - vector) for x in found for vector in x.vectors]
    assert len(distances) > 5
    assert min(distances) > same + 0.2 and np.median(distances) > 0.6


class TestLines:
  def test_reads_the_page(self, lines, pictures):
    (found,) = lines([pictures["page"]])
    text = " ".join(found.strings)
    for words in (
      "Region-based segmentation",
      "Let us first determine markers of the coins and the",
      "background. These markers are pixels that we can label",
      "unambiguously as either object or background. Here,",
      "the markers are found at the two extreme parts of the",
      "histogram of grey values",
    ):
      assert words in text
    assert found.vectors.shape == (len(found.strings), 256)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-5)
    # From the top of the page to its end, in the picture.
    middles = found.boxes[:, [1, 3]].mean(axis=1)
    assert (np.diff(middles) > 0).all() and middles[0] < 0.2 and middles[-1] > 0.8
    assert found.boxes.min() >= 0 and found.boxes.max() <= 1
    assert (found.scores > 0.6).all()

  def test_reads_nothing_where_nothing_is_written(self, lines, pictures):
    strip = np.zeros((3000, 2, 3), np.uint8)
    for found in lines([pictures["coffee"], strip, strip[:1]]):
      assert found.vectors.shape == (0, 256) and found.boxes.shape == (0, 4)
      assert list(found.strings) == [] and found.scores.shape == (0,)

  def test_an_unknown_encoder_gets_the_list(self, lines):
    with pytest.raises(
      ValueError, match="'bert' of texts; choose from sentences, static_"
    ):
      extraction.build_extractor("lines", encoder="bert")


class TestTexts:
  TEXTS = ("The cat sleeps. A kitten plays!\nStocks fell", "", "...")

  def test_sentences_are_elements(self):
    extractor = build_or_skip("sentences")
    found = extractor(self.TEXTS)
    assert [len(x.vectors) for x in found] == [3, 0, 0]
    assert found[0].strings == ["The cat sleeps.", "A kitten plays!", "Stocks fell"]
    cat, kitten, stocks = found[0].vectors
    assert cat @ kitten > cat @ stocks + 0.2
    assert found[1].vectors.shape == (0, 384) and extractor([]) == []

  def test_words_are_elements(self):
    extractor = build_or_skip("static_words")
    texts = ["A well-known cat's kitten: a report", *self.TEXTS[1:]]
    found = extractor(texts)
    assert found[0].strings == ["A", "well-known", "cat's", "kitten", "a", "report"]
    assert [len(x.vectors) for x in found] == [6, 0, 0]
    cat, kitten, report = extractor(["cat kitten report"])[0].vectors
    assert cat @ kitten > cat @ report + 0.3
    assert found[1].vectors.shape == (0, 256) and extractor([]) == []

  def test_a_words_vector_is_the_mean_of_its_tokens(self):
    extractor = build_or_skip("static_words")
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    from deepsets_jax.extraction import texts

    (_, (table_path, tokenizer_path)) = texts.load_static()
    table = load_file(table_path)["embedding.weight"].astype(np.float64)
    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    ids = tokenizer.encode("unpickled", add_special_tokens=False).ids
    mean = sum(table[i] for i in ids) / len(ids)
    (found,) = extractor(["unpickled"])
    assert len(ids) > 1
    np.testing.assert_allclose(
      found.vectors[0], mean / np.linalg.norm(mean), rtol=1e-4, atol=1e-6
    )

  def test_an_input_that_is_not_a_text_is_named(self):
    with pytest.raises(ValueError, match="text 1 of the batch is int"):
      build_or_skip("static_words")(["a", 1])


def test_neither_torch_nor_tensorflow_is_looked_for():
  """An import of either is recorded whether they are installed or not."""
  code = """
import importlib.abc, json, sys
import numpy as np

class Recorder(importlib.abc.MetaPathFinder):
  def find_spec(self, name, path=None, target=None):
    if name in ("torch", "tensorflow"):
      found.append(name)

found, built = [], []
sys.meta_path.insert(0, Recorder())
from deepsets_jax import extraction
for name in extraction.EXTRACTORS:
  if name != "onnx":
    try:
      extractor = extraction.build_extractor(name)
    except (ModuleNotFoundError, FileNotFoundError):
      continue
    picture = np.zeros((30, 40, 3), np.uint8)
    extractor([picture] if extractor.kind == "image" else ["A text."])
    built.append(name)
try:
  import torch
except ModuleNotFoundError:
  pass
print(json.dumps([built, found]))
"""
  # JAX looks for tensorflow to open a cache of compiled programs.
  variables = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}
  result = subprocess.run(
    [sys.executable, "-c", code], env=variables, capture_output=True, text=True
  )
  assert result.returncode == 0, result.stderr
  built, found = json.loads(result.stdout.splitlines()[-1])
  if not built:
    pytest.skip("no extractor's packages are installed")
  assert found == ["torch"]  # The import at the end, which shows that it is seen.


# Just enough of protocol buffers to write a small ONNX file, without the package.
def field(number, value):
  """A field: of an int, or of bytes or a string."""

  def varint(n):
    out = b""
    while n > 127:
      out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])

  if isinstance(value, int):
    return varint(number << 3) + varint(value)
  value = value.encode() if isinstance(value, str) else value
  return varint(number << 3 | 2) + varint(len(value)) + value


def constant(name, array):
  kind = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}[array.dtype]
  dims = b"".join(field(1, n) for n in array.shape)
  return field(5, dims + field(2, kind) + field(8, name) + field(9, array.tobytes()))


def value_info(number, name, shape, kind=1):
  dims = b"".join(
    field(1, field(2, n) if isinstance(n, str) else field(1, n)) for n in shape
  )
  return field(
    number, field(1, name) + field(2, field(1, field(1, kind) + field(2, dims)))
  )


def node(kind, inputs, output, **attributes):
  out = b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind)
  for name, value in attributes.items():
    ints = b"".join(field(8, n) for n in value)
    out += field(5, field(1, name) + field(20, 7) + ints)
  return field(1, out)


def write_model(path, body, shape, outputs, kind=1):
  graph = body + field(2, "g") + value_info(11, "x", shape, kind)
  graph += b"".join(value_info(12, name, out, kind) for name, out in outputs.items())
  path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(2, 17)))
  return path


WEIGHT = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
# The mean of each channel, times a matrix.
POOLED = constant("w", WEIGHT) + constant("three", np.array([0, 3], np.int64))
POOLED += node("GlobalAveragePool", ["x"], "mean")
POOLED += node("Reshape", ["mean", "three"], "flat") + node(
  "MatMul", ["flat", "w"], "y"
)
# Each place as an element of three numbers.
PLACES = constant("flat", np.array([0, 0, -1], np.int64))
PLACES += node("Reshape", ["x", "flat"], "rows")
PLACES += node("Transpose", ["rows"], "z", perm=[0, 2, 1])
MEAN, STD = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.4])


class TestOnnx:
  @pytest.fixture(autouse=True)
  def _runtime(self):
    pytest.importorskip("onnxruntime", reason="of the extra `extract`")

  @pytest.fixture
  def plain(self):
    """Pictures of one colour each, of other sizes than the network's."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (5, 3), np.uint8)
    shapes = [(8, 6), (20, 9), (1, 1), (5, 40), (31, 8)]
    return [np.full((*s, 3), c, np.uint8) for s, c in zip(shapes, colours, strict=True)]

  @pytest.mark.parametrize("batch", ["b", 1, 2])
  def test_gives_the_numbers_of_numpy(self, tmp_path, plain, batch):
    path = write_model(tmp_path / "m.onnx", POOLED, (batch, 3, 8, 6), {"y": (batch, 5)})
    extractor = extraction.build_extractor(
      "onnx", path=path, mean=MEAN, std=STD, name="mine"
    )
    found = extractor(plain)
    assert (extractor.name, extractor.kind, extractor.dimension) == ("mine", "image", 5)
    assert len(found) == len(plain)
    for one, picture in zip(found, plain, strict=True):
      want = (picture[0, 0] / 255 - MEAN) / STD @ WEIGHT
      np.testing.assert_allclose(one.vectors, want[None], rtol=1e-4, atol=1e-5)

  def test_three_dimensions_are_several_elements(self, tmp_path):
    path = write_model(tmp_path / "m.onnx", PLACES, ("b", 3, 2, 4), {"z": ("b", 8, 3)})
    picture = np.random.default_rng(0).integers(0, 256, (2, 4, 3), np.uint8)
    (found,) = extraction.build_extractor("onnx", path=path, mean=MEAN, std=STD)(
      [picture]
    )
    want = [(picture[i, j] / 255 - MEAN) / STD for i in range(2) for j in range(4)]
    np.testing.assert_allclose(found.vectors, want, rtol=1e-4, atol=1e-5)

  def test_four_dimensions_are_one_element(self, tmp_path):
    body = node("Identity", ["x"], "y")
    path = write_model(
      tmp_path / "m.onnx", body, (1, 2, 2, 3), {"y": (1, 2, 2, 3)}, kind=2
    )
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    (found,) = extraction.build_extractor("onnx", path=path)([picture])
    np.testing.assert_array_equal(found.vectors, [np.arange(12)])  # Uint8: as it is.

  def test_what_the_file_leaves_open_is_a_setting(self, tmp_path, plain):
    body = node("Transpose", ["x"], "t", perm=[0, 3, 1, 2])
    body += POOLED.replace(node("GlobalAveragePool", ["x"], "mean"), b"")
    body = body.replace(
      node("Reshape", ["mean", "three"], "flat"),
      node("GlobalAveragePool", ["t"], "mean")
      + node("Reshape", ["mean", "three"], "flat"),
    )
    path = write_model(tmp_path / "m.onnx", body, ("b", "h", "w", "c"), {"y": ("b", 5)})
    with pytest.raises(DataError, match="Set the layout to one that fits"):
      extraction.build_extractor("onnx", path=path, size=(4, 5))
    with pytest.raises(DataError, match=r"Set the size to two numbers"):
      extraction.build_extractor("onnx", path=path, layout="NHWC")
    settings = dict(path=path, size=(4, 5), mean=MEAN, std=STD)
    (found,) = extraction.build_extractor("onnx", layout="NHWC", **settings)(plain[:1])
    want = (plain[0][0, 0] / 255 - MEAN) / STD @ WEIGHT
    np.testing.assert_allclose(found.vectors[0], want, rtol=1e-4, atol=1e-5)
    with pytest.raises(DataError, match=r"m\.onnx fails on float32 \[1, 3, 4, 5\]"):
      extraction.build_extractor("onnx", layout="NCHW", **settings)

  @pytest.mark.parametrize(
    ("settings", "message"),
    [
      (dict(layout="NHWC"), "Set the layout"),
      (dict(size=(8, 7)), r"size=\(8, 7\)"),
      (dict(output="none"), r"outputs \['y', 'mean'\], and output='none'"),
      (dict(), "output=None"),
      (dict(output="y", std=(1, 0, 1)), "std"),
      (dict(output="y", mean=(1, 2)), "mean"),
    ],
  )
  def test_a_setting_that_contradicts_the_file_is_named(
    self, tmp_path, settings, message
  ):
    outputs = {"y": ("b", 5), "mean": ("b", 3, 1, 1)}
    path = write_model(tmp_path / "m.onnx", POOLED, ("b", 3, 8, 6), outputs)
    with pytest.raises(DataError, match=message):
      extraction.build_extractor("onnx", path=path, **settings)

  def test_the_fingerprint_is_of_the_file_and_of_each_setting(self, tmp_path):
    outputs = {"y": ("b", 5), "mean": ("b", 3, 1, 1)}
    path = write_model(tmp_path / "m.onnx", POOLED, ("b", 3, 8, 6), outputs)
    build = extraction.EXTRACTORS["onnx"]
    found = [
      build(path=path, output="y").fingerprint,
      build(path=path, output="mean").fingerprint,
      build(path=path, output="y", mean=MEAN).fingerprint,
      build(path=path, output="y", std=STD).fingerprint,
    ]
    (tmp_path / "m.onnx.data").write_bytes(struct.pack("<f", 1))
    found.append(build(path=path, output="y").fingerprint)
    assert len(set(found)) == len(found)

  def test_a_file_that_is_not_a_network_of_pictures_is_named(self, tmp_path):
    path = tmp_path / "m.onnx"
    with pytest.raises(FileNotFoundError, match=r"m\.onnx: no such ONNX file"):
      extraction.build_extractor("onnx", path=path)
    path.write_bytes(b"no protocol buffer")
    with pytest.raises(DataError, match=r"m\.onnx is not an ONNX file"):
      extraction.build_extractor("onnx", path=path)
    write_model(path, node("Identity", ["x"], "y"), ("b", 7), {"y": ("b", 7)})
    with pytest.raises(DataError, match=r"x: tensor\(float\) \['b', 7\].*4 dimensions"):
      extraction.build_extractor("onnx", path=path)
