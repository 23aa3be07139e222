"""How the columns of a file became tables, kept with the run that trained on them."""

from __future__ import annotations

import json
import pathlib

from deepsets_jax.data.ingest.columns import build
from deepsets_jax.data.ingest.columns.encoding import Encoding
from deepsets_jax.foundation.errors import ConfigError, DataError
from deepsets_jax.foundation.files import write_json
from deepsets_jax.training import run_folder

_COLUMNS = "columns.json"


def keep(encoding: Encoding, workdir: pathlib.Path) -> None:
  """Writes how columns of files become tables, for predictions of other files.

  Raises:
    DataError: It is not what is there: the file is not as it was when the run began.
  """
  wanted = json.loads(json.dumps(encoding.to_json()))
  if not (workdir / _COLUMNS).exists():
    write_json(workdir / _COLUMNS, wanted)
  # Read and written again, it has the settings that were not there when it was made.
  kept = build.read_encoding(workdir / _COLUMNS).to_json()
  kept = json.loads(json.dumps(kept))
  differing = [
    name
    for name in encoding.fitted
    if kept.get("fitted", {}).get(name) != wanted["fitted"][name]
  ]
  if kept != wanted:
    what = f"modality {differing[0]!r}" if differing else "its columns or labels"
    raise DataError(
      f"{workdir}: the file of the run has changed since it began ({what}): give"
      " another --workdir, or the file as it was"
    )


def read(workdir: pathlib.Path) -> Encoding:
  """What `keep` wrote.

  Raises:
    ConfigError: No run there, or one that was not trained on a file of columns.
  """
  if not (workdir / _COLUMNS).exists():
    name = run_folder.read_config(workdir).data.name
    raise ConfigError(
      f"{workdir} is a run on {name!r}, and predictions of a file need one that was"
      " trained on a file: python -m experiments.main --config=configs/table.py"
      " --config.data.path=FILE"
    )
  return build.read_encoding(workdir / _COLUMNS)
