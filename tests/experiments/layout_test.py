"""The layout of the package: the direction of imports, and the owners of some ideas."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = ROOT / "deepsets_jax"
MODULES = {
  ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
  for path in sorted(PACKAGE.rglob("*.py"))
}


def test_imports_run_downwards():
  # In a process of its own: it configures logging, and disables all other loggers.
  code = "from importlinter.cli import lint_imports; exit(lint_imports(no_cache=True))"
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0 and "5 kept, 0 broken" in done.stdout, done.stdout


def test_nothing_is_loose_at_the_root_of_the_package():
  assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]


def test_flax_linen_stays_in_encoders_fusions_and_models():
  for name, path in MODULES.items():
    if "flax.linen" in path.read_text():
      assert name.split(".")[0] in {"encoders", "fusion", "models", "testing"}, name


def test_segment_ops_have_one_owner():
  users = {name for name, path in MODULES.items() if "ops.segment_" in path.read_text()}
  assert users == {"ragged.reductions"}


@pytest.mark.parametrize("name", MODULES)
def test_functions_stay_readable(name):
  for node in ast.walk(ast.parse(MODULES[name].read_text())):
    if isinstance(node, ast.FunctionDef):
      assert node.end_lineno - node.lineno <= 50, f"{name}.{node.name}"


def test_public_classes_have_names_of_their_own():
  owners = {}
  for name, path in MODULES.items():
    for node in ast.parse(path.read_text()).body:
      # TFDS finds a data set by its module and by a class of this name.
      if isinstance(node, ast.ClassDef) and node.name not in ("Builder",):
        if not node.name.startswith("_"):
          owners.setdefault(node.name, []).append(name)
  assert not {name: found for name, found in owners.items() if len(found) > 1}


def test_nothing_is_unpickled():
  for name, path in MODULES.items():
    assert "import pickle" not in path.read_text(), name
    assert "allow_pickle=True" not in path.read_text(), name
