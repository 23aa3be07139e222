"""Times MM-IMDb at full size, from the user's file to trained models.

  python -m benchmarks.mm_imdb

The file is generated. It has the real schema, 25,959 films, and random features with a
few directions that depend on each genre: times and memory are those of the real data,
scores are not. Each step runs in its own process.
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
  """Run a module and return a Markdown row: name, time, peak memory, test metrics.

  Raises:
    RuntimeError: The module failed; the message has the last lines that it printed.
  """
  variables = {"DEEPSETS_JAX_CACHE": folder / "cache", "TFDS_DATA_DIR": folder / "tfds"}
  environment = os.environ | {key: str(path) for key, path in variables.items()}
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
      # The first model also writes the tables.
      config = f"--config=configs/mm_imdb.py:{model}"
      workdir = f"--workdir={folder}/{model}"
      row = step(f"train {model}", "experiments.main", config, workdir, folder=folder)
      print(row, flush=True)


if __name__ == "__main__":
  main()
