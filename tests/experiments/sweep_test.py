import json
import pathlib
import subprocess
import sys

from configs import base
from configs.sweeps import debian_programs

ROOT = pathlib.Path(__file__).parents[2]


def test_overrides_are_settings_of_the_base():
  overrides = list(debian_programs.overrides())
  assert len(overrides) == len({json.dumps(o) for o in overrides}) > 1
  for override in overrides:
    base.get_config().update_from_flattened_dict(override)


def test_a_sweep_runs_each_setting_once_and_ranks_them(tmp_path):
  (tmp_path / "small_sweep.py").write_text(
    "def overrides():\n"
    "  yield {'total_steps': 12}\n"
    "  yield {'total_steps': 12, 'optim.learning_rate': 0.0}\n"
  )
  command = [
    sys.executable,
    "-m",
    "experiments.sweep",
    f"--config={ROOT}/configs/smoke.py",
    "--config.data.digits.train_examples=100",
    "--config.optim.warmup_steps=2",
    "--sweep=small_sweep",
    "--metrics=accuracy",
    f"--workdir={tmp_path}/runs",
  ]
  for attempt in range(2):
    done = subprocess.run(
      command,
      cwd=ROOT,
      env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ranked = done.stdout.strip().splitlines()[-2:]
    assert "learning_rate=0.0" in ranked[0] and "learning_rate" not in ranked[1]
    # The second time, finished runs are read and nothing is trained.
    assert ("step 12/12" in done.stderr) == (attempt == 0)
  assert len(list((tmp_path / "runs/smoke").glob("*/seed_0/results.json"))) == 2
