"""Column encodings, stored in the folder of a run that was trained on a file."""

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
  """Write the encoding of a file's columns, to predict other files with it.

  Raises:
    DataError: Another encoding is stored already: the file has changed since the run
      began.
  """
  wanted = json.loads(json.dumps(encoding.to_json()))
  if not (workdir / _COLUMNS).exists():
    write_json(workdir / _COLUMNS, wanted)
  # Reading fills in the settings that are newer than the stored encoding.
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
      f"{workdir}: its data file has changed since it began ({what}). Restore"
      " the file, or give another --workdir"
    )


def read(workdir: pathlib.Path) -> Encoding:
  """Read the encoding that `keep` wrote.

  Raises:
    ConfigError: There is no run, or it was not trained on a file of columns.
  """
  if not (workdir / _COLUMNS).exists():
    name = run_folder.read_config(workdir).data.name
    raise ConfigError(
      f"{workdir} is a run on {name!r}. To predict a file, train a run on a file:"
      " python -m experiments.main --config=configs/table.py --config.data.path=FILE"
    )
  return build.read_encoding(workdir / _COLUMNS)
