"""Write predictions as Parquet, CSV or JSON lines, by the ending of the file's name.

The first column names the rows; those of `Predictor.columns` follow. CSV, for
spreadsheets, has a column "probability: NAME" per label and "importance: NAME" per
modality; labels are joined by the separator of training, and all other lists are JSON.
JSON lines have objects of probabilities by name.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from deepsets_jax.data.tables.arrow_lists import vectors_from_arrow
from deepsets_jax.foundation.errors import ConfigError

# Kind of a file, by the ending of its name.
_KIND_OF = {
  ".parquet": "Parquet",
  ".pq": "Parquet",
  ".csv": "CSV",
  ".jsonl": "JSON lines",
  ".ndjson": "JSON lines",
}
# Probabilities of more classes are one column of CSV, instead of a column each.
_MOST_COLUMNS = 1000


def check_name(path: pathlib.Path) -> None:
  """Raise a `ConfigError` for a file name with an unknown ending."""
  if path.suffix.lower() not in _KIND_OF:
    raise ConfigError(
      f"{path}: unknown kind of file {path.suffix!r}; --output must end with one of"
      f" {sorted(_KIND_OF)}"
    )


def output_name(name: str, identity: str) -> str:
  """Return a column's name in the output, which differs from `identity`, the id's."""
  return f"predicted_{name}" if name == identity else name


def write_predictions(
  path: pathlib.Path,
  kind: str,
  tables: Iterable[pa.Table],
  *,
  identity: str,
  names: Sequence[str],
  separator: str | None = None,
  metadata: Mapping[str, Any],
) -> None:
  """Write tables to one file, one after the other.

  Args:
    path: File to write; it may have a temporary name.
    kind: Ending of its final name.
    tables: At least one table; its first column names the rows.
    identity: Name of the first column in the file. A column of predictions with the
      same name is renamed by `output_name`.
    names: Names of labels or classes, in the order of probabilities.
    separator: Text between labels in a string; None writes JSON.
    metadata: Metadata of Parquet as values of JSON.
  """
  match _KIND_OF[kind.lower()]:
    case "Parquet":
      _write_parquet(path, (_named(table, identity) for table in tables), metadata)
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
  return table.rename_columns(_names(table, identity))


def _names(table: pa.Table, identity: str) -> list[str]:
  return [identity, *(output_name(name, identity) for name in table.column_names[1:])]


def _write_parquet(
  path: pathlib.Path, tables: Iterator[pa.Table], metadata: Mapping[str, Any]
) -> None:
  metadata = {key: json.dumps(value) for key, value in metadata.items()}
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
  """Return the table without lists and structs."""
  found = {}
  for name, column in zip(table.column_names, table.itercolumns(), strict=True):
    column = column.combine_chunks()
    kind = column.type
    if pa.types.is_struct(kind):
      found |= {
        f"{name}: {field.name}": column.field(i) for i, field in enumerate(kind)
      }
    elif name == "probabilities" and len(names) <= _MOST_COLUMNS:
      numbers = vectors_from_arrow(column)
      found |= {
        f"probability: {label}": pa.array(numbers[:, i])
        for i, label in enumerate(names)
      }
    elif name == "value" and pa.types.is_fixed_size_list(kind):
      numbers = vectors_from_arrow(column)
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


def _objects(
  table: pa.Table, identity: str, names: Sequence[str]
) -> Iterator[dict[str, Any]]:
  """Yield rows as JSON objects, with the digits that float32 holds."""
  keys = _names(table, identity)
  columns = [_plain(column.combine_chunks()) for column in table.itercolumns()]
  if "probabilities" in table.column_names:
    place = table.column_names.index("probabilities")
    columns[place] = [dict(zip(names, row, strict=True)) for row in columns[place]]
  for row in zip(*columns, strict=True):
    yield dict(zip(keys, row, strict=True))


def _plain(column: pa.Array) -> list[Any]:
  """Return the cells as values of JSON."""
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
