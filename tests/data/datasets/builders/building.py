"""Builds a data set, as a user does."""

import tensorflow_datasets as tfds

from deepsets_jax.data.datasets import builders


def prepare(name, data, manual=None):
  """Builds a data set, and returns its builder."""
  assert name.partition("/")[0] in builders.BUILDERS
  builder = tfds.builder(name, data_dir=data)
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=manual)
  )
  return builder
