"""Search with a finished retrieval run: next items of a user, and similar items.

  python -m experiments.search --workdir=runs/movielens_retrieval --user=1
  python -m experiments.search --workdir=runs/movielens_retrieval \
    --history="Star Wars (1977);Alien (1979)"
  python -m experiments.search --workdir=runs/movielens_retrieval \
    --item="Toy Story (1995)"

Titles are found in any case, and without the year if this is unambiguous. id:50 is the
item with this id.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from absl import flags, logging

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.serving.searcher import Hit, Searcher, UserEvent
from experiments import command

# Number of latest events of a user to print.
_LAST = 5
_QUERIES = ("user", "history", "item")


def table(hits: Sequence[Hit]) -> str:
  """Return the retrieved items as aligned columns of text."""
  lines = [("rank", "score", "events", "id", "title")]
  lines += [
    (str(hit.rank), f"{hit.score:.3f}", str(hit.events), hit.id, hit.title)
    for hit in hits
  ]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return "\n".join(
    "  ".join(
      [cell.rjust(width) for cell, width in zip(line[:-1], widths, strict=False)]
      + [line[-1]]
    )
    for line in lines
  )


def context(events: Sequence[UserEvent]) -> str:
  """Return a line for each of a user's latest events: date, rating and title."""
  lines = []
  for event in events[-_LAST:]:
    date = np.datetime_as_string(np.datetime64(event.time, "s"), unit="D")
    rating = "" if event.rating is None else f"  {event.rating:g}"
    lines.append(f"  {date}{rating}  {event.title}")
  return "\n".join(lines)


def user_answer(searcher: Searcher, id: str, k: int, approximate: bool) -> str:
  """Return the answer to --user as text."""
  events = searcher.events(id)
  hits = searcher.user(id, k, approximate=approximate)
  head = f"user {id}: {len(events)} events, the latest are\n{context(events)}"
  return (
    f"{head}\nnext items by {searcher.score}, without the user's own\n{table(hits)}"
  )


def history_answer(
  searcher: Searcher, typed: str, fields_of: str | None, k: int, approximate: bool
) -> str:
  """Return the answer to --history as text."""
  titles = [title for title in typed.split(";") if title.strip()]
  hits = searcher.history(titles, k, fields_of=fields_of, approximate=approximate)
  names = [searcher.title(searcher.row(title)) for title in titles]
  head = f"history: {'; '.join(names) or 'none'}"
  if fields_of is not None:
    head += f"\nfields: those of user {fields_of}"
  return f"{head}\nnext items by {searcher.score}, without these\n{table(hits)}"


def item_answer(searcher: Searcher, title: str, k: int, approximate: bool) -> str:
  """Return the answer to --item as text."""
  hits = searcher.item(title, k, approximate=approximate)
  name = searcher.title(searcher.row(title))
  return f"item: {name}\nsimilar items by cosine\n{table(hits)}"


def main(argv: list[str]) -> None:
  """Print the answer to the query of the command line."""
  command.reject_arguments(argv)
  given = flags.FLAGS
  if sum(given[name].value is not None for name in _QUERIES) != 1:
    raise ConfigError("give exactly one of --user, --history and --item")
  if given.fields_of is not None and given.history is None:
    raise ConfigError("--fields_of needs --history")
  logging.set_verbosity(logging.WARNING)
  common = given.k, given.approximate
  searcher = Searcher(given.workdir, given.embeddings)
  if given.user is not None:
    answer = user_answer(searcher, given.user, *common)
  elif given.history is not None:
    answer = history_answer(searcher, given.history, given.fields_of, *common)
  else:
    answer = item_answer(searcher, given.item, *common)
  print(answer)


def define_flags() -> None:
  """Define the flags; a function, so that importing the module defines none."""
  flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
  flags.DEFINE_string("user", None, "Id of a user: retrieve its next items.")
  flags.DEFINE_string(
    "history",
    None,
    "Titles or id:ID, the oldest first, separated by ;. Retrieve the next items after"
    ' them. The events are taken to be a minute apart. "" is an empty history.',
  )
  flags.DEFINE_string("item", None, "Title or id:ID: retrieve similar items.")
  flags.DEFINE_string(
    "fields_of",
    None,
    "With --history: id of a user whose fields are used, such as its age; default: all"
    " fields are absent.",
  )
  flags.DEFINE_integer("k", 10, "Number of items to retrieve.")
  flags.DEFINE_bool(
    "approximate", False, "Search with approx_max_k: fast on a TPU, may miss items."
  )
  flags.DEFINE_string(
    "embeddings",
    None,
    "Folder of experiments.embed whose item vectors are used; default: compute them.",
  )


if __name__ == "__main__":
  define_flags()
  command.run(main)
