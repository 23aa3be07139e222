"""docs/extending.md is true: its files, put into a folder, do what the page says."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = [
  line
  for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
  for line in block.splitlines()
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("extending")
  for name, text in FILES.items():
    (folder / name).write_text(text)
  return folder


def run(words, folder):
  """A command in a folder with the files of the page, as a shell runs it."""
  environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
  done = subprocess.run(
    [sys.executable, *words],
    cwd=folder, env=environment, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout


def test_every_block_of_python_is_a_file():
  assert len(FILES) == PAGE.count("```python\n") == 11


@pytest.mark.parametrize("name", [n for n in FILES if n.startswith("check_")])
def test_components_keep_their_promises(folder, name):
  run([name], folder)


@pytest.mark.slow
def test_commands_find_the_components(folder):
  assert len(COMMANDS) == 5
  for command in COMMANDS:
    run(shlex.split(command)[1:], folder)
  # From elsewhere, too: the folder is kept with the run.
  elsewhere = folder / "elsewhere"
  elsewhere.mkdir()
  words = f"-m experiments.robustness --workdir={folder}/runs/gated --draws=1"
  assert "robustness.md" in run(shlex.split(words), elsewhere)
