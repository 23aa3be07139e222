import pathlib
import re

import numpy as np
import pytest

from deepsets_jax.analysis import attribution
from experiments.results import attribution as evidence
from experiments.results import reproduce, runs
from tests.analysis.models_trained import few, untrained

ROOT = pathlib.Path(__file__).parents[2]


def cells(table):
  """The rows of a table in Markdown, without the line below the head."""
  rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
  return [rows[0], *rows[2:]]


def test_numbers_are_written_as_mean_and_deviation():
  assert runs.spread([1.0, 2.0, 3.0], 2) == "2.00 ± 1.00"
  assert runs.spread([0.5]) == "0.500"
  assert cells(runs.table(["a", "b"], [["1", "2"]])) == [["a", "b"], ["1", "2"]]


def test_every_part_has_its_place_and_its_notes():
  page = (ROOT / "RESULTS.md").read_text()
  marks = re.findall(r"<!-- (\w+) -->\n", page)
  assert marks == list(reproduce._PARTS)
  for name in marks:
    before, after = (ROOT / f"docs/{name}.md").read_text().split("\n---\n")
    assert before.strip() in page and after.strip() in page, name


@pytest.mark.slow
def test_random_weights_find_nothing_that_was_planted():
  found = evidence._auc(untrained("max"))
  assert found["accuracy"] < 0.6
  assert set(found["modalities"]) == set(attribution.METHODS) - {"attention"}
  assert set(found["elements"]) == set(found["modalities"]) - {"shapley"}
  assert np.mean(list(found["elements"].values())) == pytest.approx(0.5, abs=0.15)


@pytest.mark.slow
def test_removal_is_told_of_every_method_and_of_a_random_order():
  head, row = cells(evidence.removal_table({"mean": [untrained("mean")]}, examples=20))
  told = dict(zip(head, row, strict=True))
  assert told["model"] == "mean" and not told["argmax"].strip()
  for method in ("shapley", "leave_one_out", "random order"):
    deletion, insertion = map(float, told[method].split(" / "))
    assert 0 <= deletion <= 1 and 0 <= insertion <= 1


def test_times_are_of_the_subsets_that_differ():
  trained = untrained("concat")
  table = few(trained)
  modalities, subsets, ratio = evidence._times(trained, table)
  present = np.stack([table.lengths(name) > 0 for name in table.schema.modalities])
  assert modalities == "4" and float(ratio) > 0
  assert subsets == f"{(2 ** present.sum(axis=0)).mean():.0f} an example"
