"""Asks a finished run of recall: what a user comes to next, or what an item is like.

  python -m experiments.search --workdir=runs/movielens_retrieval --user=1
  python -m experiments.search --workdir=runs/movielens_retrieval \
    --history="Star Wars (1977);Alien (1979)"
  python -m experiments.search --workdir=runs/movielens_retrieval \
    --item="Toy Story (1995)"

Titles are in letters of any case, without the year where that suffices; id:50 is the
item of that id.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from absl import flags, logging

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.serving.searcher import Hit, Searcher, UserEvent
from experiments import command

# Events of a user that are shown.
_LAST = 5
_ASKED = ("user", "history", "item")


def table(hits: Sequence[Hit]) -> str:
  """What was found, in columns."""
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
  """The last events of a user, a line each: the date, the rating, the title."""
  lines = []
  for event in events[-_LAST:]:
    date = np.datetime_as_string(np.datetime64(event.time, "s"), unit="D")
    rating = "" if event.rating is None else f"  {event.rating:g}"
    lines.append(f"  {date}{rating}  {event.title}")
  return "\n".join(lines)


def of_user(searcher: Searcher, id: str, k: int, approximate: bool) -> str:
  """The answer to --user."""
  events = searcher.events(id)
  hits = searcher.user(id, k, approximate=approximate)
  head = f"user {id}: {len(events)} events, the last of them\n{context(events)}"
  return f"{head}\nnext, by {searcher.score}, own items left out\n{table(hits)}"


def of_history(
  searcher: Searcher, typed: str, fields_of: str | None, k: int, approximate: bool
) -> str:
  """The answer to --history."""
  titles = [title for title in typed.split(";") if title.strip()]
  hits = searcher.history(titles, k, fields_of=fields_of, approximate=approximate)
  names = [searcher.title(searcher.row(title)) for title in titles]
  head = f"history: {'; '.join(names) or 'none'}"
  if fields_of is not None:
    head += f"\nfields: those of user {fields_of}"
  return f"{head}\nnext, by {searcher.score}, these left out\n{table(hits)}"


def of_item(searcher: Searcher, title: str, k: int, approximate: bool) -> str:
  """The answer to --item."""
  hits = searcher.item(title, k, approximate=approximate)
  name = searcher.title(searcher.row(title))
  return f"item: {name}\nnearest, by cosine, itself left out\n{table(hits)}"


def main(argv: list[str]) -> None:
  """Prints the answer to the question of the command line."""
  command.no_arguments(argv)
  given = flags.FLAGS
  if sum(given[name].value is not None for name in _ASKED) != 1:
    raise ConfigError("give exactly one of --user, --history and --item")
  if given.fields_of is not None and given.history is None:
    raise ConfigError("--fields_of goes with --history alone")
  logging.set_verbosity(logging.WARNING)
  common = given.k, given.approximate
  searcher = Searcher(given.workdir, given.embeddings)
  if given.user is not None:
    answer = of_user(searcher, given.user, *common)
  elif given.history is not None:
    answer = of_history(searcher, given.history, given.fields_of, *common)
  else:
    answer = of_item(searcher, given.item, *common)
  print(answer)


def define_flags() -> None:
  """The flags of the command line; here, so that the rest can be imported."""
  flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
  flags.DEFINE_string("user", None, "Id of a user of the data: what comes next.")
  flags.DEFINE_string(
    "history",
    None,
    "What comes after these items: titles or id:ID, the oldest first, with ; between."
    ' They count as come to a minute apart. "" is a user without a history.',
  )
  flags.DEFINE_string("item", None, "Title or id:ID: the items most like it.")
  flags.DEFINE_string(
    "fields_of",
    None,
    "With --history, id of a user of the data whose fields are taken (age and the"
    " like); by default they are absent.",
  )
  flags.DEFINE_integer("k", 10, "Number of items.")
  flags.DEFINE_bool(
    "approximate", False, "Whether to search by approx_max_k, made for a TPU."
  )
  flags.DEFINE_string(
    "embeddings",
    None,
    "Folder that experiments.embed wrote: vectors of items are read, not computed.",
  )


if __name__ == "__main__":
  define_flags()
  command.run(main)
