"""What is in a file, and a proposal of what its columns are, to be read and edited.

  python -m experiments.describe films.parquet
  python -m experiments.describe films.csv --label=genres --group=director
  python -m experiments.describe films.csv --many=faces=faces.parquet:film_id
  python -m experiments.describe "sql:SELECT * FROM 'films.parquet' WHERE year > 1950"

Prints a table of the columns, how they are read, and what to look at before training.
Writes films.spec.json beside the file, which configs/table.py reads.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shlex
from collections.abc import Mapping, Sequence

from absl import app, flags, logging

from deepsets_jax.data.ingest.columns import leaks, spec, splits
from deepsets_jax.data.ingest.columns.profiling import (
  MOST_DISTINCT,
  ColumnProfile,
  profile_columns,
)
from deepsets_jax.data.ingest.columns.proposal import (
  LABEL_NAMES,
  budget,
  elements,
  propose,
  remarks,
)
from deepsets_jax.data.ingest.columns.spec import Spec
from deepsets_jax.data.ingest.files import opening
from deepsets_jax.data.ingest.files.joins import Many, parse_many
from deepsets_jax.data.ingest.files.reading import Reading
from deepsets_jax.foundation.errors import DataError
from deepsets_jax.foundation.files import write_json

_EXAMPLES = 128
_HEADER = ("column", "type", "missing", "mean", "p99", "max", "size", "distinct", "is")


def table(
  facts: Sequence[ColumnProfile], proposed: Spec, unused: Mapping[str, str]
) -> list[list[str]]:
  """A row for each column: what is in it, and what it is taken for.

  Of a modality the elements of a row, those of the rows that have any in the mean.
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
  for fact in facts:
    sizes = ["", "", ""]
    if fact.name in kinds:
      name, kind = kinds[fact.name]
      counted = elements(fact, kind)
      sizes = [f"{counted.mean_size:.1f}", str(counted.quantile(0.99))]
      sizes += [str(counted.max_size)]
      called = "" if name == fact.name else f" ({name})"
      roles[fact.name] = f"{kind.kind}{called}"
    rows.append(
      [*_of_column(fact)[:3], *sizes, *_of_column(fact)[3:], roles[fact.name]]
    )
  return rows


def _of_column(fact: ColumnProfile) -> list[str]:
  """Name, type, share missing, size of vectors, and different values."""
  widths = sorted(fact.widths)
  size = f"{widths[0]}-{widths[-1]}" if len(widths) > 1 else "".join(map(str, widths))
  many = "over " if len(fact.distinct) >= MOST_DISTINCT else ""
  return [
    fact.name,
    re.sub(r"\w+: ", "", str(fact.type)),
    f"{fact.missing / max(fact.rows, 1):.1%}",
    size,
    f"{many}{min(len(fact.distinct), MOST_DISTINCT):,}" if len(fact.distinct) else "",
  ]


def aligned(rows: Sequence[Sequence[str]]) -> str:
  """Rows of cells as columns of text."""
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = (
    "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
    for row in rows
  )
  return "\n".join(line.rstrip() for line in lines)


def labels_shown(found: survey.SplitAssignment, most: int = 10) -> str:
  """How often each label is, the most frequent first."""
  counts = sorted(found.label_counts.items(), key=lambda item: -item[1])
  shown = ", ".join(f"{name} {count:,}" for name, count in counts[:most])
  more = f" and {len(counts) - most} more" if len(counts) > most else ""
  return f"{len(counts)} labels: {shown}{more}"


def slots(facts: Sequence[ColumnProfile], proposed: Spec) -> str:
  """The slots of every modality, those that need no more than one a row together."""
  by_name = {fact.name: fact for fact in facts}
  needed = {
    name: sum(
      budget(elements(by_name[column], one), _EXAMPLES)
      for column, one in kind.by_column.items()
    )
    for name, kind in proposed.modalities.items()
  }
  several = [f"{name} {count:,}" for name, count in needed.items() if count > _EXAMPLES]
  if len(several) < len(needed):
    several.append(f"{_EXAMPLES} of each" + (" other" if several else ""))
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
  """Prints what is in a file, and writes the proposed spec.

  Args:
    path: Of the table, see `opening.open_source`.
    output: File of the spec.
    label: Column to predict; None for one whose name says so.
    group: Column whose rows of one value stay in one part.
    reading: What is known of how the files are read.
    many: Tables of which many rows belong to one row of this one, by name.
    dates: "dmy" or "mdy", the order of dates that could be read in both.

  Raises:
    DataError: The file cannot be read, or nothing can be proposed; or nothing can be
      learned as it is proposed, which is then there to be edited.
  """
  reading, many = reading or Reading(), many or {}
  labels = [label.lower()] if label else LABEL_NAMES
  source = opening.open_source(path, reading, many=many, labels=labels, dates=dates)
  facts = profile_columns(source)
  proposed, unused = propose(facts, source.where, label, group)
  proposed = dataclasses.replace(proposed, many=many)
  print(f"{source.where}: {facts[0].rows:,} rows\n")
  print(aligned(table(facts, proposed, unused)))
  _print_list("how it is read", source.notes)
  proposed = spec.with_reading(proposed, source, reading)
  write_json(output, proposed.to_json())
  try:
    found = splits.assign_splits(source, proposed, seed=0)
  except DataError as error:
    raise DataError(f"{error}\nproposed, to be edited: {output}") from error
  leaking = leaks.find(source, proposed, found)
  _print_list("look at", [*remarks(facts, proposed), *leaking])
  if found.label_counts:
    print(f"\n{labels_shown(found)}")
  rows = found.rows()
  left_out = facts[0].rows - sum(rows.values())
  print(
    f"parts: {', '.join(f'{name} {count:,}' for name, count in rows.items())}"
    + (f"; {left_out:,} rows without a label are left out" if left_out else "")
  )
  print(f"slots for {_EXAMPLES} examples, at most: {slots(facts, proposed)}")
  print(f"\nproposed: {output}; read it, edit it, and train:")
  beside = "" if output == spec.beside(path) else f":{output}"
  print(
    f"python -m experiments.main --config=configs/table.py{beside}"
    f" --config.data.path={shlex.quote(path)}"
  )


def _print_list(title: str, sentences: Sequence[str]) -> None:
  if sentences:
    print(f"\n{title}:")
    print("\n".join(f"- {sentence}" for sentence in sentences))


def main(argv: list[str]) -> None:
  """Describes the file of the command line."""
  if len(argv) != 2:
    raise app.UsageError("give one file: python -m experiments.describe FILE")
  logging.set_verbosity(logging.WARNING)
  path, given = argv[1], flags.FLAGS
  output = pathlib.Path(given.output or spec.beside(path))
  if output.exists() and not given.overwrite:
    raise app.UsageError(
      f"{output} exists; edit it, or write it anew with --overwrite, or elsewhere with"
      " --output"
    )
  reading = Reading(
    given.separator, None if given.header is None else given.header == "first"
  )
  try:
    many = parse_many(given.many)
    describe(path, output, given.label, given.group, reading, many, given.dates)
  except DataError as error:
    raise SystemExit(f"error: {error}") from error


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
  """The flags of the command line; here, so that the rest can be imported."""
  flags.DEFINE_string("label", None, "Column to predict.", flag_values=values)
  flags.DEFINE_string(
    "group", None, "Column whose rows stay in one part.", flag_values=values
  )
  flags.DEFINE_multi_string(
    "many",
    [],
    "NAME=FILE:KEY, a table of which many rows belong to one row: KEY is the column of"
    " both tables that says which; NAME=FILE:KEY=COLUMN if it has another name here.",
    flag_values=values,
  )
  flags.DEFINE_string(
    "separator", None, "Between the cells of a CSV file.", flag_values=values
  )
  flags.DEFINE_enum(
    "header", None, ["first", "none"], "First row of a CSV file.", flag_values=values
  )
  flags.DEFINE_enum(
    "dates",
    None,
    ["dmy", "mdy"],
    "Order of dates such as 02/03/2004.",
    flag_values=values,
  )
  flags.DEFINE_string("output", None, "File of the spec.", flag_values=values)
  flags.DEFINE_bool("overwrite", False, "Whether to write over it.", flag_values=values)


if __name__ == "__main__":
  define_flags()
  app.run(main)
