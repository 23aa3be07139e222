"""Write the vectors of users and items of a finished retrieval run as Parquet files.

  python -m experiments.embed --workdir=runs/movielens_retrieval \
    --output=runs/movielens_retrieval/embeddings

The folder then has items.parquet and users.parquet. The inner product of the vectors
of a user and an item is the score of this item as the user's next, so any index of
nearest neighbours by inner product can serve them. The same command resumes an
interrupted one.
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
  """Write the missing files, and print a line for each file.

  Args:
    workdir: Folder of the run.
    output: Folder to write to.
    split: `embeddings.ALL` or a split of users, see the flag.

  Raises:
    ConfigError: There is no such run or split, or the run has not ended.
    FileExistsError: A file of the same name has other content.
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
      print(f"{kind}: already written for this run: {paths[kind]}")
      continue
    start = time.monotonic()
    vectors = table()
    embeddings.write_embeddings(vectors, paths[kind])
    dimensions = vectors.schema.field("vector").type.list_size
    seconds = time.monotonic() - start
    shape = f"{len(vectors)} vectors of {dimensions} dimensions"
    print(f"{kind}: {shape} in {seconds:.1f} s: {paths[kind]}", flush=True)


def main(argv: list[str]) -> None:
  """Write the vectors of the run that the command line names."""
  command.reject_arguments(argv)
  logging.set_verbosity(logging.WARNING)
  given = flags.FLAGS
  embed(given.workdir, pathlib.Path(given.output), given.split)


def define_flags() -> None:
  """Define the flags; a function, so that importing the module defines none."""
  flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
  flags.DEFINE_string("output", None, "Folder to write to.", required=True)
  flags.DEFINE_string(
    "split",
    embeddings.ALL,
    'Users: "all", each after all its events; or the users of a split such as "test",'
    " each before the event to predict.",
  )


if __name__ == "__main__":
  define_flags()
  command.run(main)
