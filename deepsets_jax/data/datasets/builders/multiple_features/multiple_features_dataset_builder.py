"""Multiple Features from the embedded file; a config per seed of the split.

Unlike `load_multiple_features` it does not standardise the features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from deepsets_jax.data.datasets import multiple_features
from deepsets_jax.data.datasets.builders import base
from deepsets_jax.data.tables.arrow_lists import vectors_from_arrow


class Builder(base.SetBuilder):
  """One example per digit, with the splits of `load_multiple_features(seed)`."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "The first."}  # noqa: RUF012
  BUILDER_CONFIGS = [  # noqa: RUF012
    tfds.core.BuilderConfig(
      name=f"seed{seed}",
      description=f"Each digit split in the same proportion with seed {seed}.",
    )
    for seed in range(3)
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      "id": tfds.features.Text(doc="The digit and its row in the source."),
      **{
        name: tfds.features.Tensor(shape=(size,), dtype=np.float32)
        for name, size in multiple_features.VIEWS.items()
      },
      "digit": tfds.features.ClassLabel(num_classes=10),
    }
    return self.info_of(
      features,
      homepage="https://doi.org/10.24432/C5HC70",
      licence="CC BY 4.0, https://creativecommons.org/licenses/by/4.0",
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
    seed = int(self.builder_config.name.removeprefix("seed"))
    table, splits = multiple_features.rows_of_splits(seed)
    digits = table["digit"].to_numpy()
    views = {
      name: vectors_from_arrow(table[name]).astype(np.float32)
      for name in multiple_features.VIEWS
    }
    return {
      name: self._generate_examples(digits, views, rows)
      for name, rows in splits.items()
    }

  def _generate_examples(
    self, digits: np.ndarray, views: dict[str, np.ndarray], rows: np.ndarray
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for row in rows.tolist():
      digit = int(digits[row])
      vectors = {name: values[row] for name, values in views.items()}
      yield row, {"id": f"{digit}_{row}", "digit": digit, **vectors}
