"""`tfds build` for machines without TensorFlow, with the same arguments.

  python -m deepsets_jax.data.datasets.builders.build mm_imdb/features \\
    --data_dir=DATA --manual_dir=FOLDER

The command `tfds` of tensorflow-datasets 4.9.10 imports TensorFlow for another of its
subcommands, whatever one asks it for; this one reaches `build` alone. Without a config
all configs are built. The format is array_record.
"""

from __future__ import annotations

from collections.abc import Sequence

import simple_parsing
from tensorflow_datasets.scripts.cli import build

import deepsets_jax.data.datasets.builders as builders


def main(arguments: Sequence[str] | None = None) -> None:
  """The command."""
  names = ", ".join(sorted(builders.BUILDERS))
  parser = simple_parsing.ArgumentParser(
    description=f"{__doc__}\nBuilders here: {names}"
  )
  parser.add_arguments(build.Args, dest="build")
  parser.parse_args(arguments).build.execute()


if __name__ == "__main__":
  main()
