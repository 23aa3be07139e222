"""Describe the columns of a file, and propose a spec for it that users edit.

  python -m experiments.describe films.parquet
  python -m experiments.describe films.csv --label=genres --group=director
  python -m experiments.describe films.csv --many=faces=faces.parquet:film_id
  python -m experiments.describe "sql:SELECT * FROM 'films.parquet' WHERE year > 1950"

The command prints a table of the columns, how their cells are read, and what to check
before training. It writes films.spec.json beside the file; configs/table.py reads it.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shlex
from collections.abc import Mapping, Sequence

from absl import flags, logging

from deepsets_jax.data.ingest.columns import leaks, spec
from deepsets_jax.data.ingest.columns.profiling import (
  MOST_DISTINCT,
  ColumnProfile,
  profile_columns,
)
from deepsets_jax.data.ingest.columns.proposal import (
  LABEL_NAMES,
  budget,
  element_profile,
  propose,
  remarks,
)
from deepsets_jax.data.ingest.columns.spec import Spec
from deepsets_jax.data.ingest.columns.splits import SplitAssignment, assign_splits
from deepsets_jax.data.ingest.files import opening
from deepsets_jax.data.ingest.files.joins import Many, parse_many
from deepsets_jax.data.ingest.files.reading import Reading
from deepsets_jax.foundation.errors import ConfigError, DataError
from deepsets_jax.foundation.files import write_json
from experiments import command

_EXAMPLES = 128
_HEADER = (
  "column",
  "type",
  "missing",
  "mean",
  "p99",
  "max",
  "size",
  "distinct",
  "role",
)


def table(
  profiles: Sequence[ColumnProfile], proposed: Spec, unused: Mapping[str, str]
) -> list[list[str]]:
  """Return a row of cells per column: its statistics and its role.

  For columns of modalities, "mean" is the mean number of elements of the rows that have
  any, and "p99" and "max" are over all rows.
  """
  roles = {proposed.label.column: f"label, {proposed.label.kind}"}
  for mark in ("id", "split", "group"):
    if (column := getattr(proposed, mark)) is not None:
      roles[column] = mark
  roles |= {column: f"- {reason}" for column, reason in unused.items()}
  kinds = {
    column: (name, kind)
    for name, whole in proposed.modalities.items()
    for column, kind in whole.by_column.items()
  }
  rows = [list(_HEADER)]
  for profile in profiles:
    sizes = ["", "", ""]
    if profile.name in kinds:
      name, kind = kinds[profile.name]
      counted = element_profile(profile, kind)
      sizes = [f"{counted.mean_size:.1f}", str(counted.quantile(0.99))]
      sizes += [str(counted.max_size)]
      called = "" if name == profile.name else f" ({name})"
      roles[profile.name] = f"{kind.kind}{called}"
    rows.append(
      [*_of_column(profile)[:3], *sizes, *_of_column(profile)[3:], roles[profile.name]]
    )
  return rows


def _of_column(profile: ColumnProfile) -> list[str]:
  """Return name, type, missing share, vector size and number of distinct values."""
  widths = sorted(profile.widths)
  size = f"{widths[0]}-{widths[-1]}" if len(widths) > 1 else "".join(map(str, widths))
  distinct = len(profile.distinct)
  many = "over " if distinct >= MOST_DISTINCT else ""
  return [
    profile.name,
    re.sub(r"\w+: ", "", str(profile.type)),
    f"{profile.missing / max(profile.rows, 1):.1%}",
    size,
    f"{many}{min(len(profile.distinct), MOST_DISTINCT):,}"
    if len(profile.distinct)
    else "",
  ]


def aligned(rows: Sequence[Sequence[str]]) -> str:
  """Return rows of cells as aligned columns of text."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = (
    "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    for row in rows
  )
  return "\n".join(line.rstrip() for line in lines)


def labels_shown(found: SplitAssignment, most: int = 10) -> str:
  """Return the number of examples of the most frequent labels as text."""
  counts = sorted(found.label_counts.items(), key=lambda item: -item[1])
  shown = ", ".join(f"{name} {count:,}" for name, count in counts[:most])
  more = f" and {len(counts) - most} more" if len(counts) > most else ""
  return f"{len(counts)} labels: {shown}{more}"


def slots(profiles: Sequence[ColumnProfile], proposed: Spec) -> str:
  """Return the slots per modality; those with at most one per row share an entry."""
  by_name = {profile.name: profile for profile in profiles}
  needed = {
    name: sum(
      budget(element_profile(by_name[column], one), _EXAMPLES)
      for column, one in kind.by_column.items()
    )
    for name, kind in proposed.modalities.items()
  }
  several = [f"{name} {count:,}" for name, count in needed.items() if count > _EXAMPLES]
  if len(several) < len(needed):
    other = "other " if several else ""
    several.append(f"{_EXAMPLES} for each {other}modality")
  return ", ".join(several)


def describe(
  path: str,
  output: pathlib.Path,
  label: str | None = None,
  group: str | None = None,
  reading: Reading | None = None,
  many: Mapping[str, Many] | None = None,
  dates: str | None = None,
) -> None:
  """Print a description of a file, and write the proposed spec.

  Args:
    path: Path of the table, see `opening.open_source`.
    output: File of the spec.
    label: Column to predict; None finds it by name.
    group: Column whose rows of one value stay in one part; None finds it by name.
    reading: Settings on how files are read.
    many: Tables with many rows per row of this table, by name.
    dates: "dmy" or "mdy", the order of ambiguous dates.

  Raises:
    DataError: The file cannot be read, nothing can be proposed, or nothing can be
      learned with the proposed spec, which the user can then edit.
  """
  reading, many = reading or Reading(), many or {}
  labels = [label.lower()] if label else LABEL_NAMES
  source = opening.open_source(path, reading, many=many, labels=labels, dates=dates)
  profiles = profile_columns(source)
  proposed, unused = propose(profiles, source.where, label, group)
  proposed = dataclasses.replace(proposed, many=many)
  print(f"{source.where}: {profiles[0].rows:,} rows\n")
  print(aligned(table(profiles, proposed, unused)))
  _print_list("how cells are read", source.notes)
  proposed = spec.with_reading(proposed, source, reading)
  write_json(output, proposed.to_json())
  try:
    found = assign_splits(source, proposed, seed=0)
  except DataError as error:
    raise DataError(f"{error}\nEdit the proposed spec: {output}") from error
  leaking = leaks.find_leaks(source, proposed, found)
  _print_list("check before training", [*remarks(profiles, proposed), *leaking])
  if found.label_counts:
    print(f"\n{labels_shown(found)}")
  rows = found.rows()
  left_out = profiles[0].rows - sum(rows.values())
  print(
    f"parts: {', '.join(f'{name} {count:,}' for name, count in rows.items())}"
    + (f"; {left_out:,} rows without a label are left out" if left_out else "")
  )
  print(f"slots for {_EXAMPLES} examples, at most: {slots(profiles, proposed)}")
  print(f"\nthe proposed spec is in {output}; check it, edit it, and train:")
  beside = "" if output == spec.path_beside(path) else f":{output}"
  print(
    f"python -m experiments.main --config=configs/table.py{beside}"
    f" --config.data.path={shlex.quote(path)}"
  )


def _print_list(title: str, sentences: Sequence[str]) -> None:
  if sentences:
    print(f"\n{title}:")
    print("\n".join(f"- {sentence}" for sentence in sentences))


def main(argv: list[str]) -> None:
  """Describe the file that the command line names."""
  if len(argv) != 2:
    raise ConfigError("give one file: python -m experiments.describe FILE")
  logging.set_verbosity(logging.WARNING)
  path, given = argv[1], flags.FLAGS
  output = pathlib.Path(given.output or spec.path_beside(path))
  if output.exists() and not given.overwrite:
    raise ConfigError(
      f"{output} exists; edit it, replace it with --overwrite, or choose another"
      " --output"
    )
  reading = Reading(
    given.separator, None if given.header is None else given.header == "first"
  )
  many = parse_many(given.many)
  describe(path, output, given.label, given.group, reading, many, given.dates)


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
  """Define the flags; a function, so that importing the module defines none."""
  flags.DEFINE_string(
    "label", None, "Column to predict; default: found by name.", flag_values=values
  )
  flags.DEFINE_string(
    "group",
    None,
    "Column whose rows of one value stay in one part; default: found by name.",
    flag_values=values,
  )
  flags.DEFINE_multi_string(
    "many",
    [],
    "NAME=FILE:KEY, a table with any number of rows per row of the main table. KEY is"
    " the column of both tables that joins them; write NAME=FILE:KEY=COLUMN if it has"
    " another name in the main table.",
    flag_values=values,
  )
  flags.DEFINE_string(
    "separator", None, "Separator of the cells of a CSV file.", flag_values=values
  )
  flags.DEFINE_enum(
    "header",
    None,
    ["first", "none"],
    "Position of the header of a CSV file.",
    flag_values=values,
  )
  flags.DEFINE_enum(
    "dates",
    None,
    ["dmy", "mdy"],
    "Order of ambiguous dates such as 02/03/2004.",
    flag_values=values,
  )
  flags.DEFINE_string(
    "output", None, "File of the spec; default: beside the table.", flag_values=values
  )
  flags.DEFINE_bool("overwrite", False, "Replace an existing spec.", flag_values=values)


if __name__ == "__main__":
  define_flags()
  command.run(main)
