"""Two processes with four devices each train like one process with eight."""

import json
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]

CODE = """
import sys
import jax
count, index, address, workdir = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
jax.config.update("jax_num_cpu_devices", 8 // count)
if count > 1:
  jax.distributed.initialize(address, count, index)
assert jax.device_count() == 8 and jax.process_count() == count
from deepsets_jax.tasks import fit
from tests.training.loop_test import small_config
fit.train_and_evaluate(small_config(), workdir)
"""


def run(count, workdir):
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{free.getsockname()[1]}"
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", CODE, str(count), str(index), address, str(workdir)],
      cwd=ROOT,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(count)
  ]
  for process in processes:
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-3000:]
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines], json.loads(
    (workdir / "results.json").read_text()
  )


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
  lines, results = run(2, tmp_path / "two")
  alone, results_alone = run(1, tmp_path / "one")
  assert [x["step"] for x in lines] == [x["step"] for x in alone]
  for a, b in zip(lines, alone, strict=True):
    np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-5)
  np.testing.assert_allclose(
    results["test"]["loss"], results_alone["test"]["loss"], rtol=1e-5
  )
