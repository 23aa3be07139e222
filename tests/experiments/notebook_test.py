"""Notebooks: their two forms agree, and they run from start to end."""

import json
import os
import pathlib

import jupytext
import nbclient
import nbformat
import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "experiments" / "notebooks"
NOTEBOOK = FOLDER / "quickstart.ipynb"
# A cell of the test's own: what the last cells found.
_FOUND = """
import json
print(json.dumps({
  "f1": results["test"]["f1_micro"],
  "curve": curve.values.tolist(),
  "all": subsets[names],
  "none": subsets[()],
}))
"""


def test_the_two_forms_hold_the_same_cells():
  notebook, text = jupytext.read(NOTEBOOK), jupytext.read(FOLDER / "quickstart.py")
  cells = [(cell.cell_type, cell.source) for cell in notebook.cells]
  assert len(cells) > 20
  assert cells == [(cell.cell_type, cell.source) for cell in text.cells]


def test_outputs_are_stripped():
  notebook = nbformat.read(NOTEBOOK, as_version=4)
  nbformat.validate(notebook)
  for cell in notebook.cells:
    if cell.cell_type == "code":
      assert cell.outputs == [] and cell.execution_count is None


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Where a kernel's files go, and an environment in which it finds the package."""
  monkeypatch.setenv("PYTHONPATH", str(FOLDER.parents[1]))
  monkeypatch.setenv("JAX_PLATFORMS", os.environ.get("JAX_PLATFORMS", "cpu"))
  for name in ("TMPDIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
    monkeypatch.setenv(name, str(tmp_path))
  return tmp_path


@pytest.mark.slow
def test_it_runs_from_start_to_end(folder):
  notebook = jupytext.read(NOTEBOOK)
  notebook.cells.append(nbformat.v4.new_code_cell(_FOUND))
  nbclient.NotebookClient(
    notebook,
    timeout=300,
    kernel_name="python3",
    resources={"metadata": {"path": str(FOLDER)}},
  ).execute()
  *cells, last = [cell for cell in notebook.cells if cell.cell_type == "code"]
  found = json.loads(last.outputs[0].text)
  assert found["f1"] > 0.6
  assert found["curve"] == sorted(found["curve"], reverse=True)
  assert found["curve"][0] > found["curve"][-1] + 0.2
  # With nothing missing, and with nothing there.
  assert found["curve"][0] == pytest.approx(found["all"])
  assert found["curve"][-1] == pytest.approx(found["none"])
  outputs = [output for cell in cells for output in cell.outputs]
  kinds = [kind for output in outputs for kind in output.get("data", ())]
  assert kinds.count("image/png") >= 2  # Sizes of sets, and the curve.
  assert "text/html" in kinds  # The explanation.
  said = "".join(output.get("text", "") for output in outputs)
  assert "Warning" not in said
  assert "geeqie" in said or "image" in said
  assert list(folder.glob("*/quickstart/results.json"))
