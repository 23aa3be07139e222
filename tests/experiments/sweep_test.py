import json
import pathlib
import subprocess
import sys

import pytest

from configs import smoke
from configs.sweeps import debian_programs
from deepsets_jax.tasks import defaults, fit
from experiments import sweep

ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = {
  "data.digits.train_examples": 100,
  "optim.warmup_steps": 2,
  "total_steps": 12,
}


def test_overrides_are_settings_of_the_base():
  overrides = list(debian_programs.overrides())
  assert len(overrides) == len({json.dumps(o) for o in overrides}) > 1
  for override in overrides:
    defaults.supervised().update_from_flattened_dict(override)


@pytest.mark.slow
def test_a_sweep_runs_each_setting_once_and_ranks_them(tmp_path, monkeypatch):
  (tmp_path / "small_sweep.py").write_text(
    "def overrides():\n"
    "  yield {'total_steps': 12}\n"
    "  yield {'total_steps': 12, 'optim.learning_rate': 0.0}\n"
  )
  command = [
    *(sys.executable, "-m", "experiments.sweep"),
    f"--config={ROOT}/configs/smoke.py",
    *(f"--config.{name}={value}" for name, value in SETTINGS.items()),
    *("--sweep=small_sweep", "--metrics=accuracy", f"--workdir={tmp_path}/runs"),
  ]
  done = subprocess.run(
    command,
    cwd=ROOT,
    env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  assert done.stderr.count("step 12/12") == 2
  ranked = done.stdout.strip().splitlines()[-2:]
  assert "learning_rate=0.0" in ranked[0] and "learning_rate" not in ranked[1]
  folders = sorted(path.parent for path in (tmp_path / "runs/smoke").glob("*/seed_0"))
  assert [folder.name for folder in folders] == [
    "total_steps=12",
    "total_steps=12,optim.learning_rate=0.0",
  ]

  # Finished runs are read, not repeated.
  def never(*arguments):
    raise AssertionError("ran again")

  monkeypatch.setattr(fit, "train_and_evaluate", never)
  config = smoke.get_config()
  config.update_from_flattened_dict(SETTINGS)
  for folder, line, rate in zip(folders, reversed(ranked), (None, 0.0), strict=True):
    overrides = {} if rate is None else {"optim.learning_rate": rate}
    found = sweep.validation_metrics(config, overrides, [0], ["accuracy"], folder)
    assert line.startswith(f"accuracy {found['accuracy']:.4f} ")


def test_metrics_are_means_over_the_seeds(tmp_path, monkeypatch):
  def once(config, folder):
    assert folder == tmp_path / f"seed_{config.seed}" and config.total_steps == 7
    return {"validation": {"accuracy": config.seed / 8, "loss": 1.0}}

  monkeypatch.setattr(fit, "train_once", once)
  found = sweep.validation_metrics(
    smoke.get_config(), {"total_steps": 7}, [1, 4], ["accuracy"], tmp_path
  )
  assert found == {"accuracy": pytest.approx(2.5 / 8)}
