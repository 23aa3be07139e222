"""Predict every row of a file with a finished run.

  python -m experiments.predict --workdir=runs/table --input=new.parquet \
    --output=predictions.csv

The file has the columns of the training file, as Parquet, Arrow, JSON lines or CSV of
any size. The modality of a missing column is absent. The output is Parquet, CSV or JSON
lines, by its ending (see `deepsets_jax.serving.prediction_files`). With --evaluate the
input must have the label, and metrics are printed and written beside the output, to
predictions.metrics.json. The same command resumes an interrupted prediction.
"""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Sequence

import tqdm
from absl import flags, logging

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.serving import label_metrics, prediction
from deepsets_jax.serving.predictor import load_predictor
from experiments import command
from experiments.explain import check_folder


def main(argv: list[str]) -> None:
  """Predict the file that the command line names."""
  command.reject_arguments(argv)
  logging.set_verbosity(logging.WARNING)
  given = flags.FLAGS
  output = pathlib.Path(given.output)
  check_folder(output.parent)
  predictor = load_predictor(given.workdir, given.importance)
  predictor = predictor.with_many(_files(given.many))
  start = time.monotonic()
  with tqdm.tqdm(unit=" rows", disable=None) as bar:
    rows = prediction.predict_file(
      predictor,
      given.input,
      output,
      report=lambda line: tqdm.tqdm.write(line),
      progress=lambda done: bar.update(done - bar.n),
      evaluate=given.evaluate,
      strict=given.strict,
    )
  print(f"{output}: {rows} rows in {time.monotonic() - start:.0f} s")
  if given.evaluate:
    print(measures(label_metrics.file_beside(output)))


def _files(texts: Sequence[str]) -> dict[str, str]:
  """Parse texts NAME=FILE into files by table name.

  Raises:
    ConfigError: A text does not have this form.
  """
  pairs = [text.partition("=") for text in texts]
  for name, _, file in pairs:
    if not (name and file):
      raise ConfigError(f"--many={name}: expected NAME=FILE")
  return {name: file for name, _, file in pairs}


def measures(file: pathlib.Path) -> str:
  """Return a line with the metrics in a file, see `label_metrics.measure`."""
  found = json.loads(file.read_text())
  values = [
    f"{name} {'undefined' if value is None else f'{value:.4f}'}"
    for name, value in found["metrics"].items()
  ]
  return f"{file}: " + "  ".join([f"{found['rows']} rows", *values])


def define_flags() -> None:
  """Define the flags; a function, so that importing the module defines none."""
  flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
  flags.DEFINE_string("input", None, "File to predict.", required=True)
  flags.DEFINE_string(
    "output", None, "File to write: .parquet, .csv or .jsonl.", required=True
  )
  flags.DEFINE_multi_string(
    "many",
    [],
    "NAME=FILE, a table with any number of rows per row of the input; default: the file"
    " of the same name beside the input.",
  )
  flags.DEFINE_bool("evaluate", False, "Compute metrics with the label in the input.")
  flags.DEFINE_bool(
    "strict", False, "Stop at an unreadable image; otherwise it is absent."
  )
  flags.DEFINE_string(
    "importance",
    "usual",
    'Method of the importance of modalities, or "none". "usual" is shapley for up to'
    " 12 modalities, and leave_one_out for more.",
  )


if __name__ == "__main__":
  define_flags()
  command.run(main)
