"""Run `tfds build` on a machine without TensorFlow, with the same arguments.

  python -m tools.build_dataset mm_imdb/features --data_dir=DATA --manual_dir=FOLDER

The command `tfds` of tensorflow-datasets 4.9.10 imports TensorFlow for one of its
subcommands, even when another is called; this program imports `build` alone. Without a
config, all configs are built. The format is array_record.
"""

from __future__ import annotations

from collections.abc import Sequence

import simple_parsing
from tensorflow_datasets.scripts.cli import build

from deepsets_jax.data.datasets import builders


def main(arguments: Sequence[str] | None = None) -> None:
  """Build the data set of the command line."""
  names = ", ".join(sorted(builders.BUILDERS))
  parser = simple_parsing.ArgumentParser(
    description=f"{__doc__}\nBuilders here: {names}"
  )
  parser.add_arguments(build.Args, dest="build")
  parser.parse_args(arguments).build.execute()


if __name__ == "__main__":
  main()
