"""MM-IMDb from the user's file to a trained model, at full size, step by step.

  python -m benchmarks.mm_imdb

The file is generated: of the true schema, 25,959 films, random features in which each
genre moves a few directions. What the models reach on it says nothing of the real film
data; the seconds and the memory do. Each step is a process of its own.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

_MODELS = ("concat", "gated", "set_pool")


def step(name: str, module: str, *arguments: str, folder: pathlib.Path) -> str:
  """Runs a module and returns a row: its name, seconds and most memory.

  Raises:
    RuntimeError: It failed; with what it printed last.
  """
  places = {"DEEPSETS_JAX_CACHE": folder / "cache", "TFDS_DATA_DIR": folder / "tfds"}
  environment = os.environ | {key: str(path) for key, path in places.items()}
  start = time.perf_counter()
  with (folder / "printed").open("w+") as printed:
    process = subprocess.Popen(
      [sys.executable, "-m", module, *arguments],
      stdout=printed,
      stderr=subprocess.STDOUT,
      env=environment,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    printed.seek(0)
    lines = printed.read().splitlines()
  if process.returncode:
    raise RuntimeError("\n".join([f"{name} failed:", *lines[-20:]]))
  found = next((line for line in lines if line.startswith("test: ")), "")
  score = " ".join(found.split()[3:7])
  seconds, memory = time.perf_counter() - start, usage.ru_maxrss / 1e6
  return f"| {name} | {seconds:.0f} s | {memory:.2f} GB | {score} |"


def main(arguments: Sequence[str] | None = None) -> None:
  """Prints a table of all steps."""
  del arguments
  print("| step | time | memory | test |\n|---|---|---|---|")
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    file = f"--output={folder}/manual/multimodal_imdb.hdf5"
    print(step("generate", "tools.make_mm_imdb", file, folder=folder))
    places = (f"--data_dir={folder}/tfds", f"--manual_dir={folder}/manual")
    name = "mm_imdb/features"
    print(step("build", "tools.build_dataset", name, *places, folder=folder))
    for model in _MODELS:
      # The first also makes the tables.
      config = f"--config=configs/mm_imdb.py:{model}"
      workdir = f"--workdir={folder}/{model}"
      row = step(f"train {model}", "experiments.main", config, workdir, folder=folder)
      print(row, flush=True)


if __name__ == "__main__":
  main()
