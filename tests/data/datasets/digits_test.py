import itertools

import numpy as np
import pytest
import sklearn.datasets

from deepsets_jax.data.datasets import digits
from deepsets_jax.data.tables.schema import Target

FEW = {"train_examples": 300, "test_sizes": (7, 30)}


@pytest.fixture(scope="module")
def known():
  """The digit that each image shows, by its bytes."""
  data = sklearn.datasets.load_digits()
  pixels = (data.data / 16).astype(np.float32)
  return {
    image.tobytes(): digit
    for image, digit in zip(pixels, data.target.tolist(), strict=True)
  }


def sets_of(table, known):
  """The digits of each set, read off its images."""
  return [
    [known[image.tobytes()] for image in images]
    for images in table.modalities["image"].to_lists()
  ]


TRUTH = {
  "sum": sum,
  "max": max,
  "unique": lambda shown: len(set(shown)),
  "contains_nine": lambda shown: 9 in shown,
}


@pytest.mark.parametrize("task", TRUTH)
def test_targets_match_a_loop_over_the_images(task, known):
  for table in digits.load_digits(task, 0, **FEW).values():
    sets = sets_of(table, known)
    want = np.array([TRUTH[task](shown) for shown in sets], np.float32)
    np.testing.assert_array_equal(table.targets.reshape(-1), want, strict=True)
    smallest = 1 if task in ("sum", "max") else 0
    assert {digit for shown in sets for digit in shown} == set(range(smallest, 10))
    assert len(np.unique(table.targets)) > 1


@pytest.mark.parametrize("task", digits.TASKS)
def test_every_split_is_a_valid_table_of_its_size(task):
  tables = digits.load_digits(task, 0, **FEW)
  further = ["test_7", "test_30"] if task in ("sum", "max", "unique") else []
  assert list(tables) == ["train", "validation", "test", *further]
  for split, table in tables.items():
    table.validate(split)
    assert len(table) == (300 if split == "train" else 1000)
    assert len(set(table.ids.tolist())) == len(table)
    lengths = sum(table.lengths(name) for name in table.modalities)
    size = split.removeprefix("test_")
    want = {int(size)} if size.isdigit() else set(range(1, 11))
    assert set(lengths.tolist()) == want


def test_kinds_of_targets():
  kinds = {task: digits.load_digits(task, 0, **FEW)["train"] for task in digits.TASKS}
  for task in ("sum", "max", "unique"):
    assert kinds[task].schema.target.kind == "regression"
    assert kinds[task].targets.shape == (300, 1)
  assert kinds["contains_nine"].schema.target.kind == "binary"
  assert kinds["multimodal"].schema.target == Target(
    "multiclass", 10, digits.NUMBER_WORDS
  )


@pytest.mark.parametrize("task", ["sum", "unique"])
def test_no_image_is_in_two_parts(task, known):
  tables = digits.load_digits(task, 3, train_examples=5000, test_sizes=(50,))
  seen = {
    split: {image.tobytes() for image in table.modalities["image"].values}
    for split, table in tables.items()
  }
  seen["test"] |= seen.pop("test_50")
  assert not seen["train"] & seen["validation"]
  assert not seen["train"] & seen["test"]
  assert not seen["validation"] & seen["test"]
  # There are enough sets for every image to occur.
  eligible = sum(digit > 0 or task == "unique" for digit in known.values())
  for split, share in (("train", 0.7), ("validation", 0.15), ("test", 0.15)):
    assert abs(len(seen[split]) / eligible - share) < 0.01


def same(a, b):
  return all(
    np.array_equal(a.modalities[name].values, b.modalities[name].values)
    and np.array_equal(a.modalities[name].offsets, b.modalities[name].offsets)
    for name in a.modalities
  )


@pytest.mark.parametrize("task", ["sum", "multimodal"])
def test_seed_decides_everything(task):
  first, again = (digits.load_digits(task, 5, **FEW) for _ in range(2))
  other = digits.load_digits(task, 6, **FEW)
  for split in first:
    assert same(first[split], again[split])
    assert not same(first[split], other[split])


def test_splits_are_drawn_independently():
  tables = digits.load_digits("sum", 0, train_examples=1000, test_sizes=())
  sizes = [table.lengths("image") for table in tables.values()]
  for a, b in itertools.combinations(sizes, 2):
    np.testing.assert_allclose((a == b).mean(), 0.1, atol=0.05)


def test_a_split_does_not_depend_on_the_others():
  few = digits.load_digits("sum", 0, train_examples=10, test_sizes=(30,))
  more = digits.load_digits("sum", 0, train_examples=20, test_sizes=(7, 30))
  for split in ("validation", "test", "test_30"):
    assert same(few[split], more[split])


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"task": "median"}, r"unknown task 'median'; one of \['sum'"),
    ({"train_examples": 0}, "train_examples 0, expected at least 1"),
    ({"max_size": 0}, "max_size 0, expected at least 1"),
    ({"test_sizes": (10, 0)}, "test_sizes 0, expected at least 1"),
  ],
)
def test_bad_arguments_are_named(arguments, message):
  with pytest.raises(ValueError, match=message):
    digits.load_digits(**{"task": "sum", "seed": 0, **arguments})


@pytest.fixture(scope="module")
def made():
  return digits.planted(0, train_examples=20_000)


class TestMultimodal:
  def test_load_returns_the_planted_tables(self, made):
    loaded = digits.load_digits("multimodal", 0)
    for split, table in made[0].items():
      assert same(loaded[split], table)
      np.testing.assert_array_equal(loaded[split].targets, table.targets)

  def test_planted_elements_show_the_label_and_others_less(self, made, known):
    for split, table in made[0].items():
      truth = made[1][split]
      profiles = {}
      for image, digit in known.items():
        square = np.frombuffer(image, np.float32).reshape(8, 8)
        profile = np.concatenate([square.sum(1), square.sum(0)])
        profiles[profile.tobytes()] = digit
      shown = {
        "image": [known[x.tobytes()] for x in table.modalities["image"].values],
        "profile": [profiles[x.tobytes()] for x in table.modalities["profile"].values],
        "caption": table.modalities["caption"].values,
      }
      for name, values in shown.items():
        labels = np.repeat(table.targets, table.lengths(name))
        np.testing.assert_array_equal(truth[name], np.array(values) == labels)
        assert np.all(np.array(values) <= labels)

  def test_every_example_has_a_planted_element(self, made):
    for split, table in made[0].items():
      planted = np.zeros(len(table), int)
      for name, ragged in table.modalities.items():
        rows = np.repeat(np.arange(len(table)), ragged.lengths)
        planted += np.bincount(rows, made[1][split][name], len(table)).astype(int)
      assert planted.min() >= 1

  def test_one_in_ten_is_misread(self, made):
    table, truth = made[0]["train"], made[1]["train"]["ocr"]
    labels = np.repeat(table.targets, table.lengths("ocr"))
    read, labels = table.modalities["ocr"].values[truth], labels[truth]
    np.testing.assert_allclose((read == labels).mean(), 0.9, atol=0.01)
    for digit in (8, 9):
      wrong = set(read[labels == digit].tolist()) - {digit}
      assert wrong == set(range(10)) - {digit}
      counts = np.bincount(read[labels == digit], minlength=10)
      assert np.delete(counts, digit).max() < 0.03 * counts.sum()

  def test_modalities_are_absent_at_random_and_equally_often(self, made):
    table = made[0]["train"]
    lengths = np.stack([table.lengths(name) for name in table.modalities])
    assert lengths.sum(axis=0).min() == 1
    long = lengths[:, lengths.sum(axis=0) == 10]
    # Ten digits miss a modality that is on with probability below .06.
    absent = (long == 0).mean(axis=1)
    assert np.all((absent > 0.19) & (absent < 0.33))
    np.testing.assert_allclose(lengths.mean(axis=1) / lengths.mean(), 1, atol=0.05)
    # With at most one modality on, the digits of the others are not lost.
    alone = ((long > 0).sum(axis=0) == 1).mean()
    np.testing.assert_allclose(alone, 4 * 0.8 * 0.2**3 + 0.2**4, atol=0.01)


def test_characters_are_misread_at_the_rate_given():
  def wrong(rate):
    tables, truth = digits.planted(0, train_examples=400, misread_rate=rate)
    table = tables["train"]
    ocr, decides = table.modalities["ocr"], truth["train"]["ocr"]
    rows = np.repeat(np.arange(len(table)), table.lengths("ocr"))
    return np.mean(ocr.values[decides] != table.targets[rows][decides])

  assert wrong(0.0) == 0 and wrong(1.0) == 1
  assert 0.05 < wrong(0.1) < 0.15
  with pytest.raises(ValueError, match="misread_rate 2 is not in"):
    digits.planted(0, misread_rate=2)
