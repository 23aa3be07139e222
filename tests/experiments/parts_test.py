import pathlib
import re

import numpy as np
import pytest

from deepsets_jax.analysis import attribution
from experiments.results import attribution as evidence
from experiments.results import reproduce, tables
from tests.analysis.models_trained import few, untrained

ROOT = pathlib.Path(__file__).parents[2]


def cells(table):
  """The rows of a table in Markdown, without the line below the head."""
  rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
  return [rows[0], *rows[2:]]


def test_numbers_are_written_as_mean_and_deviation():
  assert tables.mean_and_sd([1.0, 2.0, 3.0], 2) == "2.00 ± 1.00"
  assert tables.mean_and_sd([0.5]) == "0.500"
  assert cells(tables.markdown_table(["a", "b"], [["1", "2"]])) == [
    ["a", "b"],
    ["1", "2"],
  ]


def test_every_section_has_its_marks_and_its_texts(monkeypatch):
  monkeypatch.chdir(ROOT)
  page = pathlib.Path("RESULTS.md").read_text()
  marks = re.findall(r"<!-- (\w+) -->\n", page)
  assert marks == list(reproduce.PARTS)
  for name in marks:
    before, after = reproduce.surrounding_text(name)
    begin, end = f"<!-- {name} -->\n", f"\n<!-- /{name} -->"
    section = page[page.index(begin) + len(begin) : page.index(end)]
    assert section.startswith(f"{before}\n\n"), name
    assert section.endswith(f"\n\n{after}"), name


def test_a_section_replaces_what_is_between_its_marks(tmp_path):
  page = tmp_path / "page.md"
  page.write_text("a\n<!-- x -->\nold\n<!-- /x -->\nb\n<!-- y -->\n1\n<!-- /y -->\n")
  reproduce.replace_part(page, "x", r"new \1")
  reproduce.replace_part(page, "z", "nowhere")
  want = "a\n<!-- x -->\nnew \\1\n<!-- /x -->\nb\n<!-- y -->\n1\n<!-- /y -->\n"
  assert page.read_text() == want


@pytest.mark.slow
def test_random_weights_find_nothing_that_was_planted():
  found = evidence._planted_auc(untrained("max"))
  assert found["accuracy"] < 0.6
  assert set(found["modalities"]) == set(attribution.METHODS) - {"attention"}
  assert set(found["elements"]) == set(found["modalities"]) - {"shapley"}
  assert np.mean(list(found["elements"].values())) == pytest.approx(0.5, abs=0.15)


@pytest.mark.slow
def test_removal_has_a_column_for_every_method_and_for_a_random_order():
  head, row = cells(evidence.removal_table({"mean": [untrained("mean")]}, examples=20))
  found = dict(zip(head, row, strict=True))
  assert found["model"] == "mean" and not found["argmax"].strip()
  for method in ("shapley", "leave_one_out", "random order"):
    deletion, insertion = map(float, found[method].split(" / "))
    assert 0 <= deletion <= 1 and 0 <= insertion <= 1


def test_the_cost_of_shapley_values_counts_subsets_of_present_modalities():
  trained = untrained("concat")
  table = few(trained)
  modalities, subsets, ratio = evidence._shapley_cost(trained, table)
  present = np.stack([table.lengths(name) > 0 for name in table.schema.modalities])
  assert modalities == "4" and float(ratio) > 0
  assert subsets == f"{(2 ** present.sum(axis=0)).mean():.0f} an example"
