"""Sets of handwritten digits, the canonical experiments, on scikit-learn's 8x8 images.

After Zaheer et al., "Deep Sets" (2017) (the sum), Lee et al., "Set Transformer" (2019)
(the maximum, unique elements), and Ilse et al., "Attention-based Deep Multiple Instance
Learning" (2018) (a nine in the bag); and multi-modal sets of our own, for which the
elements that determine the label are known. The images are split before sets are drawn
from them, so no image of a test set was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import sklearn.datasets
from ml_collections import ConfigDict, config_dict

from deepsets_jax.data.datasets.entry import DatasetEntry
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged, from_lengths

TASKS = ("sum", "max", "unique", "contains_nine", "multimodal")
NUMBER_WORDS = tuple("zero one two three four five six seven eight nine".split())

# Number of sets in every split except "train".
_EVALUATION_EXAMPLES = 1000
# Shares at which the shuffled images of each digit are cut into three splits.
_CUTS = (0.7, 0.85)
# Probability that a modality of a multi-modal set is off in an example.
_OFF_RATE = 0.2

_TARGETS = {
  "sum": Target("regression", 1, ("sum",)),
  "max": Target("regression", 1, ("largest",)),
  "unique": Target("regression", 1, ("distinct digits",)),
  "contains_nine": Target("binary", 1, ("contains a nine",)),
  "multimodal": Target("multiclass", 10, NUMBER_WORDS),
}
_MODALITIES = {
  "image": Modality("vectors", 64),
  "profile": Modality("vectors", 16),
  "ocr": Modality("tokens", 10),
  "caption": Modality("tokens", 10),
}


class _Sets(NamedTuple):
  """The sets of one split, their digits end to end.

  Attributes:
    split: The name of the split.
    pixels: The image of each digit, from 0 to 1: `[n, 64]` float32.
    digits: The digit that each image shows: `[n]`.
    sizes: The number of digits of each set, at least 1: `[b]`.
    rng: The generator for everything else that is random in the split.
  """

  split: str
  pixels: np.ndarray
  digits: np.ndarray
  sizes: np.ndarray
  rng: np.random.Generator


def load_digits(
  task: str,
  seed: int,
  *,
  train_examples: int = 20_000,
  max_size: int = 10,
  test_sizes: Sequence[int] = (10, 20, 50, 100),
  misread_rate: float = 0.1,
) -> dict[str, Table]:
  """Draws the tables "train", "validation", "test" and, for some tasks, "test_<size>".

  The examples are sets of images. The tasks "sum" and "max" are of digits from 1 to 9;
  "unique", the number of distinct digits, and "contains_nine" of digits from 0 to 9.
  For "multimodal" see `planted`. Every table except "train" has 1,000 sets.

  Args:
    task: One of `TASKS`.
    seed: Seed of the split of the images and of the sets.
    train_examples: Number of training sets.
    max_size: The largest size of a set; sizes are uniform from 1.
    test_sizes: For "sum", "max" and "unique": the sizes of the sets of further splits,
      one split for each size.
    misread_rate: For "multimodal"; see `planted`.

  Raises:
    ConfigError: An unknown task, or a number out of range.
  """
  if task not in TASKS:
    raise ConfigError(f"unknown task {task!r}; one of {list(TASKS)}")
  if task == "multimodal":
    return planted(
      seed,
      train_examples=train_examples,
      max_size=max_size,
      misread_rate=misread_rate,
    )[0]
  schema = Schema({"image": _MODALITIES["image"]}, _TARGETS[task])
  smallest = 1 if task in ("sum", "max") else 0
  further = () if task == "contains_nine" else test_sizes
  tables = {}
  for sets in _draw(seed, smallest, train_examples, max_size, further):
    elements = from_lengths(sets.pixels, sets.sizes)
    targets = _summary(task, sets.digits, elements.offsets)
    tables[sets.split] = Table(schema, {"image": elements}, targets, _ids(sets))
  return tables


def planted(
  seed: int,
  *,
  train_examples: int = 20_000,
  max_size: int = 10,
  misread_rate: float = 0.1,
) -> tuple[dict[str, Table], dict[str, dict[str, np.ndarray]]]:
  """Draws the tables of "multimodal", and marks the elements that determine the label.

  The label is the largest digit of a set. Each digit is one element of one modality: an
  `image`; a `profile`, the sums of its 8 rows and of its 8 columns; `ocr`, the digit,
  misread with probability `misread_rate`; or `caption`, the number's word. In each
  example, each modality is off with probability 0.2 and at least one is on; each digit
  takes one of the modalities that are on, all with the same probability.

  Returns:
    The tables, see `load_digits`; and {split: {modality: `[n]` bool}}, True for an
    element whose true digit (not the misread one) is the label.

  Raises:
    ConfigError: A number out of range.
  """
  if not 0 <= misread_rate <= 1:
    raise ConfigError(f"digits: misread_rate {misread_rate} is not in [0, 1]")
  schema = Schema(_MODALITIES, _TARGETS["multimodal"])
  tables, truth = {}, {}
  for sets in _draw(seed, 0, train_examples, max_size, ()):
    rows = np.repeat(np.arange(len(sets.sizes)), sets.sizes)
    first = np.cumsum(sets.sizes) - sets.sizes
    labels = np.maximum.reduceat(sets.digits, first).astype(np.int32)
    form = _draw_forms(rows, len(labels), sets.rng)
    modalities: dict[str, Ragged] = {}
    truth[sets.split] = {}
    for index, (name, values) in enumerate(_forms(sets, misread_rate).items()):
      own = form == index
      lengths = np.bincount(rows[own], minlength=len(labels))
      modalities[name] = from_lengths(values[own], lengths)
      truth[sets.split][name] = (sets.digits == labels[rows])[own]
    tables[sets.split] = Table(schema, modalities, labels, _ids(sets))
  return tables, truth


def _draw(
  seed: int,
  smallest_digit: int,
  train_examples: int,
  max_size: int,
  test_sizes: Sequence[int],
) -> Iterator[_Sets]:
  """Yields the sets of each split, with images drawn at random with replacement.

  Each split has its own random numbers, so that it does not depend on the others.
  """
  for what, value in (
    ("train_examples", train_examples),
    ("max_size", max_size),
    *(("test_sizes", size) for size in test_sizes),
  ):
    if value < 1:
      raise ConfigError(f"digits: {what} {value}, expected at least 1")
  data = sklearn.datasets.load_digits()
  pixels, digits = (data.data / 16).astype(np.float32), data.target
  train, validation, test = _split_images(digits, seed)
  few = _EVALUATION_EXAMPLES
  # Name, images, number of sets, smallest size, largest size, random stream.
  splits = [
    ("train", train, train_examples, 1, max_size, 1),
    ("validation", validation, few, 1, max_size, 2),
    ("test", test, few, 1, max_size, 3),
    *((f"test_{size}", test, few, size, size, 3 + size) for size in test_sizes),
  ]
  for split, images, num_sets, low, high, stream in splits:
    rng = np.random.default_rng((seed, stream))
    sizes = rng.integers(low, high + 1, num_sets)
    eligible = images[digits[images] >= smallest_digit]
    drawn = rng.choice(eligible, sizes.sum())
    yield _Sets(split, pixels[drawn], digits[drawn], sizes, rng)


def _split_images(digits: np.ndarray, seed: int) -> list[np.ndarray]:
  """Rows of the images of each split; each digit is cut at the same shares."""
  order = np.random.default_rng(seed).permutation(len(digits))
  parts = []
  for digit in range(10):
    rows = order[digits[order] == digit]
    parts.append(np.split(rows, [int(cut * len(rows)) for cut in _CUTS]))
  return [np.concatenate(part) for part in zip(*parts, strict=True)]


def _summary(task: str, digits: np.ndarray, offsets: np.ndarray) -> np.ndarray:
  """The targets of sets of digits `[n]`: `[b, 1]`, or `[b]` for "contains_nine"."""
  first = offsets[:-1]
  if task == "sum":
    values = np.add.reduceat(digits, first)
  elif task == "max":
    values = np.maximum.reduceat(digits, first)
  elif task == "unique":
    present = np.bitwise_or.reduceat(1 << digits, first)
    values = np.bitwise_count(present)
  else:
    return np.maximum.reduceat(digits == 9, first).astype(np.float32)
  return values.astype(np.float32)[:, None]


def _forms(sets: _Sets, misread_rate: float) -> dict[str, np.ndarray]:
  """Each digit as an element of every modality: {modality: `[n, ...]`}."""
  squares = sets.pixels.reshape(-1, 8, 8)
  misread = sets.rng.random(len(squares)) < misread_rate
  wrong = (sets.digits + sets.rng.integers(1, 10, len(squares))) % 10
  return {
    "image": sets.pixels,
    "profile": np.concatenate([squares.sum(2), squares.sum(1)], axis=1),
    "ocr": np.where(misread, wrong, sets.digits).astype(np.int32),
    "caption": sets.digits.astype(np.int32),
  }


def _draw_forms(
  rows: np.ndarray, num_examples: int, rng: np.random.Generator
) -> np.ndarray:
  """Draws the modality of each digit, `[n]`, among those that are on in its example."""
  on = rng.random((num_examples, len(_MODALITIES))) >= _OFF_RATE
  kept = rng.integers(len(_MODALITIES), size=num_examples)
  none = np.flatnonzero(~on.any(axis=1))
  on[none, kept[none]] = True
  scores = rng.random((len(rows), len(_MODALITIES)))
  return np.where(on[rows], scores, -1).argmax(axis=1)


def _ids(sets: _Sets) -> np.ndarray:
  return np.array([f"{sets.split} {row}" for row in range(len(sets.sizes))])


def _element_names(config: ConfigDict, seed: int) -> dict[str, tuple[str, ...]]:
  del seed
  if config.digits.task != "multimodal":
    return {}
  return {"ocr": tuple("0123456789"), "caption": NUMBER_WORDS}


SETTINGS = config_dict.create(
  # "sum", "max", "unique", "contains_nine" or "multimodal".
  task="sum",
  # Number of training sets.
  train_examples=20_000,
  # Largest training set.
  max_size=10,
  # Set sizes of the further test splits of unseen images.
  test_sizes=(10, 20, 50, 100),
  # Probability that the character reader of "multimodal" reads a wrong digit.
  misread_rate=0.1,
)

ENTRY = DatasetEntry(
  settings=SETTINGS,
  load_tables=lambda config, seed: load_digits(seed=seed, **config.digits),
  element_names=_element_names,
  images=lambda _: {"image": lambda vectors: vectors.reshape(-1, 8, 8)},
)
