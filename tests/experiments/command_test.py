"""What all commands share: mistakes of the user end in one line."""

import pathlib
import subprocess
import sys

import pytest

from deepsets_jax.foundation.errors import ConfigError, DataError
from experiments import command

ROOT = pathlib.Path(__file__).parents[2]


def fail(error):
  raise error


@pytest.mark.parametrize(
  "error", [ConfigError("no such run"), DataError("row 3"), FileExistsError("there")]
)
def test_a_mistake_of_the_user_is_one_line(error):
  with pytest.raises(SystemExit, match=f"^error: {error}$"):
    command.guarded(fail, error)


def test_a_defect_keeps_its_traceback():
  with pytest.raises(ValueError, match="shapes"):
    command.guarded(fail, ValueError("shapes differ"))
  assert not issubclass(ConfigError, DataError)
  assert not issubclass(DataError, ConfigError)


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    ("--config=configs/movielens_recall.py", "now called configs/movielens_retrieval"),
    ("--config=configs/movielens_rank.py:a", "now called configs/movielens_ranking.py"),
    ("--config=configs/no.py", "there is no config configs/no.py$"),
    ("--config=wide=configs/no.py:a", "there is no config configs/no.py$"),
    ("--config.recall.uniform=3", "now called config.retrieval.num_uniform_negatives"),
    ("--config.recall.cutoffs=3", "now called config.retrieval.cutoffs"),
    ("--config.data.histories.window=3", "config.data.histories.max_history"),
  ],
)
def test_older_names_are_answered_with_the_new_ones(argument, message, monkeypatch):
  monkeypatch.chdir(ROOT)
  with pytest.raises(ConfigError, match=message):
    command._check_config(["main", argument])


def test_modules_beside_the_config_can_be_imported(tmp_path, monkeypatch):
  monkeypatch.setattr(sys, "path", [*sys.path])
  (tmp_path / "mine.py").write_text("")
  command._check_config(["main", f"--config={tmp_path}/mine.py:3"])
  assert sys.path[-1] == str(tmp_path)


def main(*arguments):
  words = [sys.executable, "-m", "experiments.main", "--config=configs/smoke.py"]
  done = subprocess.run(
    [*words, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
  )
  return done.returncode, done.stderr


@pytest.mark.parametrize(
  ("override", "line"),
  [
    ("--config.model.widht=3", "error: the config has no setting 'widht'"),
    (
      "--config.optim.learning_rat=1",
      "error: the config has no setting 'learning_rat'; did you mean 'learning_rate'?",
    ),
    ("--config.model.mil.hidden=3", "error: config.model.mil: the config has another"),
  ],
)
def test_a_setting_that_does_not_exist_is_named_in_one_line(override, line):
  code, text = main(override)
  assert code == 1 and text.startswith(line) and text.count("\n") == 1
  if "widht" in override:
    code, text = main(override, "--debug")
    assert code == 1 and "Traceback" in text


def test_an_error_of_a_config_is_one_line():
  code, text = main("--config.total_steps=many")
  assert code == 1 and "total_steps=many" in text and text.count("\n") == 1
