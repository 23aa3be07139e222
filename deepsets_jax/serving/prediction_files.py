"""Files of predictions: Parquet, CSV or JSON lines, by the ending of their name.

The columns are those of `prediction.Predictor.columns`, after one that names the rows.
Parquet has them as they are. CSV, for spreadsheets, has a column for each probability
and for the importance of each modality, called "probability: NAME" and "importance:
NAME"; labels are joined by the separator that they had in training, and all other lists
are JSON. JSON lines have objects of probabilities by name.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from deepsets_jax.foundation.errors import ConfigError

# The kind of a file, by the end of its name.
_KIND_OF = {
  ".parquet": "Parquet",
  ".pq": "Parquet",
  ".csv": "CSV",
  ".jsonl": "JSON lines",
  ".ndjson": "JSON lines",
}
# Probabilities of more classes are one column of a CSV, not a column each.
_MOST_COLUMNS = 1000


def check_name(path: pathlib.Path) -> None:
  """Raises a ValueError for a name whose ending is none of a kind of file."""
  if path.suffix.lower() not in _KIND_OF:
    raise ConfigError(
      f"{path}: unknown kind of file {path.suffix!r}; give --output one of the endings"
      f" {sorted(_KIND_OF)}"
    )


def renamed(name: str, identity: str) -> str:
  """What a column of predictions is called beside the column that names the rows."""
  return f"predicted_{name}" if name == identity else name


def write_predictions(
  path: pathlib.Path,
  kind: str,
  tables: Iterable[pa.Table],
  *,
  identity: str,
  names: Sequence[str],
  separator: str | None = None,
  facts: Mapping[str, Any],
) -> None:
  """Writes tables one after the other into a file.

  Args:
    path: Of the file.
    kind: Ending of the name that it will have.
    tables: At least one; their first column names the rows.
    identity: What the first column is called in the file. A column of predictions of
      the same name is called as `renamed` says.
    names: Of labels or classes, in the order of probabilities.
    separator: Of labels in a string; None for JSON.
    facts: For the metadata of Parquet, values of JSON.
  """
  match _KIND_OF[kind.lower()]:
    case "Parquet":
      _write_parquet(path, (_named(table, identity) for table in tables), facts)
    case "CSV":
      flat = (_named(_flat(table, names, separator), identity) for table in tables)
      _write_csv(path, flat)
    case _:
      with path.open("w", encoding="utf-8") as file:
        for table in tables:
          for row in _objects(table, identity, names):
            line = json.dumps(row, ensure_ascii=False, default=str)
            file.write(line + "\n")


def _named(table: pa.Table, identity: str) -> pa.Table:
  ours = table.column_names[1:]
  return table.rename_columns([identity, *(renamed(name, identity) for name in ours)])


def _write_parquet(
  path: pathlib.Path, tables: Iterator[pa.Table], facts: Mapping[str, Any]
) -> None:
  metadata = {key: json.dumps(value) for key, value in facts.items()}
  first = next(tables)
  schema = first.schema.with_metadata(metadata)
  with pq.ParquetWriter(path, schema, compression="zstd") as writer:
    for table in (first, *tables):
      writer.write_table(table.cast(schema))


def _write_csv(path: pathlib.Path, tables: Iterator[pa.Table]) -> None:
  first = next(tables)
  with pyarrow.csv.CSVWriter(path, first.schema) as writer:
    for table in (first, *tables):
      writer.write_table(table)


def _flat(table: pa.Table, names: Sequence[str], separator: str | None) -> pa.Table:
  """The table without lists and structs."""
  found = {}
  for name, column in zip(table.column_names, table.itercolumns(), strict=True):
    column = column.combine_chunks()
    kind = column.type
    if pa.types.is_struct(kind):
      found |= {
        f"{name}: {field.name}": column.field(i) for i, field in enumerate(kind)
      }
    elif name == "probabilities" and len(names) <= _MOST_COLUMNS:
      numbers = _matrix(column)
      found |= {
        f"probability: {label}": pa.array(numbers[:, i])
        for i, label in enumerate(names)
      }
    elif name == "value" and pa.types.is_fixed_size_list(kind):
      numbers = _matrix(column)
      found |= {f"value: {i}": pa.array(numbers[:, i]) for i in range(numbers.shape[1])}
    elif name == "labels" and separator is not None:
      cells = [separator.join(map(str, cell)) for cell in column.to_pylist()]
      found[name] = pa.array(cells, pa.string())
    elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
      cells = [
        json.dumps(cell, ensure_ascii=False, default=str) for cell in _plain(column)
      ]
      found[name] = pa.array(cells, pa.string())
    else:
      found[name] = column
  return pa.table(found)


def _matrix(column: pa.FixedSizeListArray) -> np.ndarray:
  return column.flatten().to_numpy().reshape(len(column), column.type.list_size)


def _objects(
  table: pa.Table, identity: str, names: Sequence[str]
) -> Iterator[dict[str, Any]]:
  """The rows, without digits that float32 does not have."""
  keys = [identity, *(renamed(name, identity) for name in table.column_names[1:])]
  columns = [_plain(column.combine_chunks()) for column in table.itercolumns()]
  if "probabilities" in table.column_names:
    place = table.column_names.index("probabilities")
    columns[place] = [dict(zip(names, row, strict=True)) for row in columns[place]]
  for row in zip(*columns, strict=True):
    yield dict(zip(keys, row, strict=True))


def _plain(column: pa.Array) -> list[Any]:
  """Values for JSON."""
  kind, cells = column.type, column.to_pylist()
  if pa.types.is_struct(kind):
    fields = [_plain(column.field(i)) for i in range(kind.num_fields)]
    labels = [field.name for field in kind]
    return [dict(zip(labels, row, strict=True)) for row in zip(*fields, strict=True)]
  inner = kind.value_type if hasattr(kind, "value_type") else kind
  if not pa.types.is_float32(inner):
    return cells
  if inner is kind:
    return [None if cell is None else float(f"{cell:.9g}") for cell in cells]
  return [[float(f"{x:.9g}") for x in cell] for cell in cells]
