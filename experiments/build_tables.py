"""Build the tables of a large file with Apache Beam, for later runs to load.

  python -m experiments.build_tables 'films-*.parquet' --runner=FlinkRunner
  python -m experiments.main --config=configs/table.py \\
    --config.data.path='films-*.parquet'

Arguments that are not listed below are options of Beam and its runner. All workers must
see the file and the folder DEEPSETS_JAX_CACHE on one file system. Prefer Parquet: CSV
and JSON lines are read from their beginning for every range of rows.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from deepsets_jax.data.ingest.columns import beam, build, spec
from experiments import command


def main(arguments: Sequence[str] | None = None) -> None:
  """Build the tables of the file that the command line names."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("path", help="file, folder, pattern of files, or tfds:NAME")
  parser.add_argument(
    "--spec", help="spec, a JSON file; default: the one beside the file"
  )
  parser.add_argument("--seed", type=int, default=0, help="seed of the run's config")
  parser.add_argument("--range_rows", type=int, default=1 << 16, help="rows per worker")
  flags, options = parser.parse_known_args(arguments)
  columns = spec.read_spec(flags.spec or spec.path_beside(flags.path))
  # Configs sort names, and a run looks for the tables of the spec in its config.
  modalities = dict(sorted(columns.modalities.items()))
  columns = dataclasses.replace(columns, modalities=modalities)
  folder = build.folder_of(flags.path, columns, flags.seed)
  if not folder.exists():
    arguments = (flags.path, columns, flags.seed, folder, options, flags.range_rows)
    beam.build_tables(*arguments)
  if text := build.unreadable_images(folder, flags.path):
    print(text)
  rows = {part: len(table) for part, table in build.read_tables(folder).items()}
  print(f"{flags.path}: rows {rows} in {folder}")


if __name__ == "__main__":
  command.guarded(main)
