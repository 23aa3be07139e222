"""Multiple Features: handwritten digits told by six vectors of 6 to 240 features.

2,000 digits from Dutch utility maps, 200 of each. Robert Duin, "Multiple Features", UCI
Machine Learning Repository, 1998, doi 10.24432/C5HC70, under CC BY 4.0
(creativecommons.org/licenses/by/4.0); described in van Breukelen et al., "Handwritten
digit recognition by combined classifiers", Kybernetika 34(4), 1998. The file beside
this module is made by `multiple_features_builder`, which rounds the values and changes
nothing else.
"""

from __future__ import annotations

import pathlib

import numpy as np
import pyarrow as pa

from deepsets_jax.data.tables import parquet
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.ragged import Ragged, from_lengths

PATH = pathlib.Path(__file__).with_name("multiple_features.parquet")
FORMAT = "deepsets_jax multiple features 1"
# Number of features of each view: Fourier coefficients, profile correlations,
# Karhunen-Loeve coefficients, averages of 2x3 pixels, Zernike moments, morphology.
VIEWS = {"fou": 76, "fac": 216, "kar": 64, "pix": 240, "zer": 47, "mor": 6}

# Examples of each digit in the training and the validation part; the rest is test.
_TRAIN, _VALIDATION = 32, 8


def load_multiple_features(seed: int) -> dict[str, Table]:
  """The tables "train", "validation" and "test": 320, 80 and 1,600 examples.

  Each digit is split alike. A view is a modality with one vector in every example, its
  features standardised by the training part; one that is constant there is 0. An id is
  "digit_row", the row in the file.

  Raises:
    DataError: The file is missing or damaged.
  """
  features, splits = rows_of_splits(seed)
  digits = features["digit"].to_numpy().astype(np.int32)
  modalities = {name: _vectors(features[name], splits["train"]) for name in VIEWS}
  schema = Schema(
    {name: Modality("vectors", size) for name, size in VIEWS.items()},
    Target("multiclass", 10, tuple("0123456789")),
  )
  ids = np.array([f"{digit}_{row}" for row, digit in enumerate(digits)])
  table = Table(schema, modalities, digits, ids)
  return {split: table.select(rows) for split, rows in splits.items()}


def rows_of_splits(seed: int) -> tuple[pa.Table, dict[str, np.ndarray]]:
  """The embedded file, and the rows of each split as `load` makes them.

  Raises:
    DataError: The file is missing or damaged.
  """
  features = _read()
  return features, _split(features["digit"].to_numpy(), seed)


def _read() -> pa.Table:
  advice = (
    "restore it, or rebuild it with python -m"
    f" tools.build_multiple_features --input=WHEEL --output={PATH}"
  )
  return parquet.read_parquet(PATH, FORMAT, advice)


def _split(digits: np.ndarray, seed: int) -> dict[str, np.ndarray]:
  """Rows of each split, in increasing order."""
  order = np.random.default_rng(seed).permutation(len(digits))
  part = np.full(len(digits), 2, np.int8)
  for digit in range(10):
    rows = order[digits[order] == digit]
    part[rows[: _TRAIN + _VALIDATION]] = 1
    part[rows[:_TRAIN]] = 0
  names = ("train", "validation", "test")
  return {name: np.flatnonzero(part == i) for i, name in enumerate(names)}


def _vectors(column: pa.ChunkedArray, train: np.ndarray) -> Ragged:
  """One standardised vector for each example: `[n, d]` float32."""
  values = column.combine_chunks().flatten().to_numpy()
  values = values.reshape(len(column), -1).astype(np.float64)
  mean, deviation = values[train].mean(axis=0), values[train].std(axis=0)
  # Not by the deviation, which rounding may leave above 0.
  varies = values[train].min(axis=0) < values[train].max(axis=0)
  values = np.where(varies, (values - mean) / np.where(varies, deviation, 1), 0)
  return from_lengths(values.astype(np.float32), np.ones(len(values), np.int64))
