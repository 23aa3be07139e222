"""The vectors of a finished run of recall: users and items, as Parquet files.

  python -m experiments.embed --workdir=runs/movielens_retrieval \
    --output=runs/movielens_retrieval/embeddings

The folder then holds items.parquet and users.parquet. The product of a user's vector
and an item's says how likely the user comes to the item next: they suit any index of
nearest neighbours by inner product. The same command goes on where it was stopped.
"""

from __future__ import annotations

import pathlib
import time

import pyarrow as pa
from absl import flags, logging

from deepsets_jax import tasks
from deepsets_jax.serving import embeddings
from experiments import command
from experiments.explain import check_folder


def embed(workdir: str, output: pathlib.Path, split: str) -> None:
  """Writes the files that are not there yet, and prints a line for each.

  Raises:
    ValueError: No such run, one that has not ended, or no such split.
    FileExistsError: There is a file of something else.
  """
  check_folder(output)
  task, params = tasks.load_task(workdir, "retrieval")
  embeddings.check_split(task, split)
  digest = embeddings.digest(task, workdir)
  paths = {kind: output / f"{kind}.parquet" for kind in embeddings.KINDS}
  splits = {"items": embeddings.ALL, "users": split}
  there = {
    kind: embeddings.is_there(path, kind, digest, splits[kind])
    for kind, path in paths.items()
  }

  def items() -> pa.Table:
    return embeddings.embed_items(task, params, digest)

  def users() -> pa.Table:
    vectors = embeddings.read_items(paths["items"], digest)
    return embeddings.embed_users(task, params, vectors, digest, split)

  for kind, table in {"items": items, "users": users}.items():
    if there[kind]:
      print(f"{kind}: there already, of the same run: {paths[kind]}")
      continue
    start = time.monotonic()
    made = table()
    embeddings.write_embeddings(made, paths[kind])
    dimensions = made.schema.field("vector").type.list_size
    seconds = time.monotonic() - start
    shape = f"{len(made)} vectors of {dimensions} dimensions"
    print(f"{kind}: {shape} in {seconds:.1f} s: {paths[kind]}", flush=True)


def main(argv: list[str]) -> None:
  """Writes the vectors of the run that the command line names."""
  command.no_arguments(argv)
  logging.set_verbosity(logging.WARNING)
  given = flags.FLAGS
  embed(given.workdir, pathlib.Path(given.output), given.split)


def define_flags() -> None:
  """The flags of the command line; here, so that the rest can be imported."""
  flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
  flags.DEFINE_string("output", None, "Folder to write to.", required=True)
  flags.DEFINE_string(
    "split",
    embeddings.ALL,
    'Of users: "all" of them, after all their events; or a split, such as "test", with'
    " its users before what they were to find.",
  )


if __name__ == "__main__":
  define_flags()
  command.run(main)
