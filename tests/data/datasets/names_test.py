"""Names of elements and targets, against the data that they come from."""

import ml_collections
import numpy as np
import pytest

from configs import debian_programs as debian_config
from configs import smoke
from deepsets_jax.data.datasets import debian_programs, digits, names, registry
from deepsets_jax.data.tables.schema import Target


class TestDebianPrograms:
  def test_ids_have_the_strings_they_were_made_of(self):
    config = debian_config.get_config()
    table = registry.load_tables(config.data, config.seed)["test"]
    words = names.element_names(config.data, config.seed)
    assert set(words) == set(table.schema.modalities) - {"size"}
    for name, strings in words.items():
      assert len(strings) == table.schema.modalities[name].size
    row = table.ids.tolist().index("vim")
    column = table.modalities["name"]
    ids = column.values[column.offsets[row] : column.offsets[row + 1]]
    parts = {"<vi", "vim", "im>", "<vim", "vim>", "=vim"}
    known = parts & set(words["name"])
    assert "=vim" in known and {words["name"][i] for i in ids} == known

  def test_sentences_have_no_names(self):
    config = debian_config.get_config()
    config.data.debian_programs.text = "sentences"
    found = names.element_names(config.data, 0)
    assert set(found) == {"depends", "recommends", "suggests", "name"}

  def test_names_follow_the_settings_of_the_vocabulary(self):
    config = debian_config.get_config()
    config.data.debian_programs.min_document_frequency = 5
    want = debian_programs.vocabularies(3, min_document_frequency=5)
    assert names.element_names(config.data, 3) == want


class TestDigits:
  def test_the_largest_name_is_the_label(self):
    data = smoke.get_config().data
    tables, _ = digits.planted(0, train_examples=1, misread_rate=0)
    table, words = tables["test"], names.element_names(data, 0)
    number = {word: i for i, word in enumerate(digits.NUMBER_WORDS)}
    largest = np.full(len(table), -1)
    for row in range(len(table)):
      for name, strings in words.items():
        column = table.modalities[name]
        for value in column.values[column.offsets[row] : column.offsets[row + 1]]:
          text = strings[value]
          digit = number[text] if name == "caption" else int(text)
          largest[row] = max(largest[row], digit)
    only = (table.lengths("image") == 0) & (table.lengths("profile") == 0)
    assert only.sum() > 20
    np.testing.assert_array_equal(largest[only], table.targets[only])

  def test_images_are_pictures(self):
    data = smoke.get_config().data
    tables, _ = digits.planted(0, train_examples=1)
    column = tables["test"].modalities["image"]
    row = int(np.argmax(np.diff(column.offsets)))
    (found,) = names.pictures(data, tables["test"], row).values()
    begin, end = column.offsets[row], column.offsets[row + 1]
    assert found.shape == (end - begin, 8, 8)
    np.testing.assert_array_equal(found.reshape(-1, 64), column.values[begin:end])

  def test_sets_of_images_alone_have_no_names(self):
    data = smoke.get_config().data
    data.digits.task = "sum"
    assert names.element_names(data, 0) == {}


def test_other_data_has_neither_names_nor_pictures():
  data = ml_collections.ConfigDict({"name": "tables"})
  assert names.element_names(data, 0) == {}
  assert names.pictures(data, None, 0) == {}


@pytest.mark.parametrize(
  ("modality", "value", "want"),
  [
    ("word", 1, "editor"),
    ("word", 0, repr("a\nb")),
    ("word", 2, "''"),
    ("face", np.zeros(4), "face[7]"),
    ("size", np.array([0.5]), "size[7] = 0.5"),
    ("item", np.int32(412), "item[7] = 412"),
  ],
)
def test_an_element_has_its_string_or_its_position(modality, value, want):
  assert names.text(modality, 7, value, {"word": ("a\nb", "editor", "")}) == want


KINDS = {
  "multilabel": Target("multilabel", 3, ("a", "b", "c")),
  "multiclass": Target("multiclass", 4, ("a", "b", "c", "d")),
  "binary": Target("binary", 1),
  "named": Target("binary", 1, ("rare",)),
  "regression": Target("regression", 2, ("x", "y")),
  "scaled": Target("regression", 2, shift=(3.0, 1.0), scale=(2.0, 0.5)),
}


class TestTargets:
  @pytest.mark.parametrize(
    ("kind", "value", "want"),
    [
      ("multilabel", np.array([1, 0, 1]), ["a", "c"]),
      ("multilabel", np.zeros(3), []),
      ("multiclass", np.int32(3), ["d"]),
      ("binary", np.float32(1), ["yes"]),
      ("binary", np.float32(0), ["no"]),
      ("regression", np.array([1.5, 2]), ["1.5", "2"]),
      ("scaled", np.array([1.5, 2]), ["6", "2"]),
    ],
  )
  def test_truth_in_words(self, kind, value, want):
    assert names.truth(KINDS[kind], value) == want

  @pytest.mark.parametrize(
    ("kind", "scores", "want"),
    [
      ("multilabel", [0.3, 0.1, 0.9], [("c", 0.9), ("a", 0.3)]),
      ("multilabel", [0.15, 0.1, 0.05], []),
      ("multiclass", [0.1, 0.4, 0.3, 0.2], [("b", 0.4), ("c", 0.3), ("d", 0.2)]),
      ("binary", 0.1, [("no", 0.9)]),
      ("binary", 0.3, [("yes", 0.3)]),
      ("named", 0.1, [("rare", 0.1)]),
      ("regression", [0.1, 4], [("x", 0.1), ("y", 4)]),
    ],
  )
  def test_predictions_have_names_and_numbers(self, kind, scores, want):
    found = names.prediction(KINDS[kind], np.array(scores), 0.2)
    assert [(one["name"], one["value"]) for one in found] == want
