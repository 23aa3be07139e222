"""The README's words are true: its code runs, its commands and files exist."""

import doctest
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_wine

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)


def commands():
  """Every python command of the README, as its arguments."""
  for block in BLOCKS:
    for command in re.split(r"&&|\n", block.replace("\\\n", " ")):
      words = shlex.split(command)
      if words[:2] == ["python", "-m"]:
        yield words


def test_code_runs_as_shown(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  result = doctest.testfile(
    str(ROOT / "README.md"), module_relative=False, optionflags=doctest.ELLIPSIS
  )
  assert result.attempted > 8 and result.failed == 0


def test_commands_name_what_exists():
  found = list(commands())
  assert len(found) >= 4
  for words in found:
    module = words[2].replace(".", "/")
    assert words[2] == "pytest" or (ROOT / f"{module}.py").exists(), words
    for word in words:
      if word.startswith("--config="):
        path = word.removeprefix("--config=").partition(":")[0]
        assert (ROOT / path).exists(), word


def test_links_exist():
  for path in re.findall(r"\]\(([^)h][^)]*)\)", README):
    assert (ROOT / path).exists(), path


def test_every_room_has_a_short_page():
  layout = README.split("## Layout")[1]
  package = ROOT / "deepsets_jax"
  rooms = [*package.glob("[a-z]*/"), *(package / "data").glob("[a-z]*/")]
  for room in rooms:
    if not (room / "__init__.py").exists():  # What an older version has left.
      continue
    assert f"{room.name}/" in layout, room
    page = (room / "README.md").read_text()
    assert 5 <= page.count("\n") <= 40, room
    for path in re.findall(r"`(\w+\.py)`", page):
      assert list(room.rglob(path)), (room, path)


def test_the_first_two_commands_are_marked_for_ci():
  assert "<!-- train -->\n```bash\npip install -e . && python -m experiments" in README
  assert (
    "<!-- test -->\n```bash\npip install -e '.[test]' && python -m pytest" in README
  )


def run(words, cwd):
  """A command as a stranger's shell runs it, in another folder than the clone."""
  environment = os.environ | {
    "PYTHONPATH": str(ROOT),
    "DEEPSETS_JAX_CACHE": str(pathlib.Path(cwd, "cache")),
  }
  words = [sys.executable, *words[1:]]
  return subprocess.run(
    words, cwd=cwd, env=environment, capture_output=True, text=True, check=False
  )


@pytest.mark.slow
def test_the_smoke_config_runs_and_learns(tmp_path):
  config = f"--config={ROOT}/configs/smoke.py"
  done = run(["python", "-m", "experiments.main", config], tmp_path)
  assert done.returncode == 0, done.stderr[-2000:]
  results = json.loads((tmp_path / "runs/smoke/results.json").read_text())
  assert results["test"]["accuracy"] > 0.6  # The most frequent class is below 0.4.
  assert "results and pictures are in runs/smoke" in done.stdout
  assert "slots" in done.stdout and "validation accuracy" in done.stderr


@pytest.mark.slow
def test_a_table_never_seen_is_described_learned_and_predicted(tmp_path):
  code = re.search(r"<!-- own -->\n```bash\n(.*?)```", README, re.DOTALL)[1]
  wine = load_wine()
  columns = dict(zip(wine.feature_names, wine.data.T, strict=True))
  columns["class"] = [str(wine.target_names[i]) for i in wine.target]
  pq.write_table(pa.table(columns), tmp_path / "wine.parquet")
  (tmp_path / "configs").symlink_to(ROOT / "configs")
  for command in code.replace("\\\n", " ").splitlines():
    done = run(shlex.split(command), tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
  found = pq.read_table(tmp_path / "predictions.parquet")
  both = (found["label"].to_pylist(), columns["class"])
  right = [a == b for a, b in zip(*both, strict=True)]
  assert len(right) == 178 and sum(right) > 0.9 * 178


@pytest.mark.slow
def test_the_main_job_keeps_its_promise(tmp_path):
  config = f"--config={ROOT}/configs/debian_programs.py"
  done = run(["python", "-m", "experiments.main", config], tmp_path)
  assert done.returncode == 0, done.stderr[-2000:]
  folder = tmp_path / "runs/debian_programs"
  results = json.loads((folder / "results.json").read_text())
  assert results["test"]["f1_micro"] >= 0.66
  assert results["seconds"] < 300
  assert (folder / "label_f1.png").exists()
