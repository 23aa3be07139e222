"""The command line of both modules of baselines."""

from __future__ import annotations

from collections.abc import Callable

from absl import flags

from experiments import command


def run(movielens_table: Callable[[str | None, str], str]) -> None:
  """Print the table of one split of MovieLens 100K, which the flags choose.

  Args:
    movielens_table: (path of the data or None, split) -> table.
  """
  path = flags.DEFINE_string(
    "path", None, "File of MovieLens 100K; downloaded by default."
  )
  split = flags.DEFINE_enum(
    "split", "test", ["validation", "test"], "Part of the data to evaluate on."
  )

  def main(argv: list[str]) -> None:
    command.reject_arguments(argv)
    print(movielens_table(path.value, split.value))

  command.run(main)
