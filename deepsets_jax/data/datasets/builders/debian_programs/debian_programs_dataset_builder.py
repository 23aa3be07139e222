"""Debian programs as strings, from the embedded file; a config per seed of the split.

Unlike `load_debian_programs` it makes no vocabularies; users process the strings
themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from deepsets_jax.data.datasets import debian_programs
from deepsets_jax.data.datasets.builders import base

# Features that are sequences of strings, apart from the labels.
_SEQUENCES = ("summary", "description", "depends", "recommends", "suggests")


class Builder(base.SetBuilder):
  """One example per program, with the splits of `load_debian_programs(seed)`."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "The first."}  # noqa: RUF012
  BUILDER_CONFIGS = [  # noqa: RUF012
    tfds.core.BuilderConfig(
      name=f"seed{seed}", description=f"Split by source package with seed {seed}."
    )
    for seed in range(3)
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    programs, _ = debian_programs.rows_of_splits(self._seed)
    labels = sorted({label for row in programs["labels"].to_pylist() for label in row})
    text = tfds.features.Text
    features = {
      "package": text(),
      "source": text(doc="The source package, by which the programs are split."),
      **{name: tfds.features.Sequence(text()) for name in _SEQUENCES},
      "size_kb": tfds.features.Scalar(
        np.float32, doc="Installed size; NaN if unknown."
      ),
      "labels": tfds.features.Sequence(tfds.features.ClassLabel(names=labels)),
    }
    return self.info_of(
      features,
      homepage="https://wiki.debian.org/Debtags",
      licence="The descriptions are the packages' own, under their free licences.",
    )

  @property
  def _seed(self) -> int:
    return int(self.builder_config.name.removeprefix("seed"))

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Any:
    programs, splits = debian_programs.rows_of_splits(self._seed)
    return {
      name: self._generate_examples(programs.take(rows))
      for name, rows in splits.items()
    }

  def _generate_examples(self, programs: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, program in enumerate(programs.to_pylist()):
      if program["size_kb"] is None:
        program["size_kb"] = np.nan
      yield row, {name: program[name] for name in self.info.features}
