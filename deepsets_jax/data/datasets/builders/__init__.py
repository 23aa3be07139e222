"""TFDS builders; after importing this, `tfds.builder("mm_imdb/raw")` finds them.

They need no TensorFlow: records are array_record files, read by `tfds.data_source`. A
record has no null, so all builders write an absent value as an empty string, an empty
sequence or NaN, and `ingest.files.records` reads these as absent. Records keep the
order of their source.
"""

from deepsets_jax.data.datasets.builders.debian_programs import (
  debian_programs_dataset_builder,
)
from deepsets_jax.data.datasets.builders.mm_imdb import mm_imdb_dataset_builder
from deepsets_jax.data.datasets.builders.movielens_sequences import (
  movielens_sequences_dataset_builder,
)
from deepsets_jax.data.datasets.builders.multiple_features import (
  multiple_features_dataset_builder,
)

BUILDERS = {
  module.Builder.name: module.Builder
  for module in (
    debian_programs_dataset_builder,
    mm_imdb_dataset_builder,
    movielens_sequences_dataset_builder,
    multiple_features_dataset_builder,
  )
}
