"""Search with a finished retrieval run: items for a user, and similar items.

  searcher = Searcher("runs/movielens_retrieval")
  searcher.user("1", k=5)
  searcher.history(["Star Wars (1977)", "Alien (1979)"])
  searcher.item("Toy Story (1995)")

Each method returns `Hit`s, the best first.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from deepsets_jax import tasks
from deepsets_jax.data.interactions import next_item
from deepsets_jax.data.interactions.histories import Histories
from deepsets_jax.data.tables.table import blank
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Ragged
from deepsets_jax.serving import embeddings as files
from deepsets_jax.serving.titles import Titles, row_of
from deepsets_jax.tasks.retrieval.nearest import nearest

# Seconds between the events of a typed history, which has no times.
APART = 60


@dataclasses.dataclass(frozen=True)
class Hit:
  """A retrieved item.

  Attributes:
    rank: Rank from 1.
    score: The product of the vectors, or their cosine.
    row: Row in the table of items.
    id: Id of the item.
    title: Title of the item.
    events: Number of the item's training events, its popularity.
  """

  rank: int
  score: float
  row: int
  id: str
  title: str
  events: int


@dataclasses.dataclass(frozen=True)
class UserEvent:
  """An event of a user.

  Attributes:
    row: Row of the item.
    title: Title of the item.
    time: Seconds since 1970.
    rating: The rating; None for clicks.
  """

  row: int
  title: str
  time: int
  rating: float | None


class Searcher:
  """A retrieval run at its best checkpoint, with the vectors of its items."""

  def __init__(
    self,
    workdir: str | pathlib.Path,
    embeddings: str | pathlib.Path | None = None,
  ):
    """Open a run.

    Args:
      workdir: Folder of the run.
      embeddings: Folder of experiments.embed with the vectors of the run's items; None
        computes them.

    Raises:
      ConfigError: See `tasks.load_task` and `embeddings.digest`.
      DataError: The files are missing, or belong to another run.
    """
    self.task, self._params = tasks.load_task(workdir, "retrieval")
    histories = self.task.histories
    if embeddings is None:
      self.items = self.task.items(self._params)
    else:
      path = pathlib.Path(embeddings) / "items.parquet"
      self.items = files.read_items(path, files.digest(self.task, workdir))
    self._events = histories.popularity(self.task.train_ends)
    self._titles = Titles(histories.items.ids, self.task.titles, self._events)

  @property
  def score(self) -> str:
    """Kind of the scores of `user` and `history`: "product" or "cosine"."""
    return "cosine" if self.task.config.retrieval.normalize else "product"

  def user(self, id: str, k: int = 10, *, approximate: bool = False) -> list[Hit]:
    """Return the best next items for a user after all events.

    Items of the user's history are left out, so that there may be fewer than `k`.

    Args:
      id: Id of the user.
      k: Number of items.
      approximate: See `nearest.nearest`.

    Raises:
      ConfigError: There is no such user, or `k` is out of range.
    """
    row = self._user(id)
    return self._hits_of_user(self.task.histories, row, k, approximate)

  def history(
    self,
    titles: Sequence[str],
    k: int = 10,
    *,
    fields_of: str | None = None,
    approximate: bool = False,
  ) -> list[Hit]:
    """Return the best next items after a given history, whose items are left out.

    Args:
      titles: Titles of the history, the oldest first, see `row`. There may be none. The
        events are taken to be a minute apart.
      k: Number of items.
      fields_of: Id of a user whose fields are used; None for absent fields.
      approximate: See `nearest.nearest`.

    Raises:
      ConfigError: See `row` and `user`.
    """
    users, rows = self.task.histories.users, [self.row(title) for title in titles]
    own = blank(users.schema)
    if fields_of is not None:
      own = users.select(np.array([self._user(fields_of)]))
    typed = dataclasses.replace(
      self.task.histories,
      users=own,
      offsets=np.array([0, len(rows)]),
      rows=np.array(rows, np.int32),
      times=APART * np.arange(len(rows)),
      ratings=None,
    )
    return self._hits_of_user(typed, 0, k, approximate)

  def item(self, title: str, k: int = 10, *, approximate: bool = False) -> list[Hit]:
    """Return the items whose vectors have the largest cosine with an item's vector.

    Raises:
      ConfigError: See `row`; or the item has no element; or `k` is out of range.
    """
    row = self.row(title)
    items = self.task.histories.items
    if not any(items.lengths_of(name, row) for name in items.modalities):
      raise ConfigError(
        f"item {self.title(row)!r} has {self._events[row]} training events and no field"
        " that the run reads, so its vector is undefined"
      )
    seen = np.array([row])
    vector = self._directions[row]
    return self._hits(vector, self._directions, k, seen, approximate)

  def row(self, title: str) -> int:
    """Return the row of an item by its title, see `titles.Titles.row`.

    Raises:
      ConfigError: No item or several items match; names candidates.
    """
    return self._titles.row(title)

  def title(self, row: int) -> str:
    """Return the title of the item of a row."""
    return str(self.task.titles[row])

  def events(self, id: str) -> list[UserEvent]:
    """Return all events of a user, by time.

    Raises:
      ConfigError: There is no such user.
    """
    histories, user = self.task.histories, self._user(id)
    found = range(*histories.offsets[user : user + 2])
    ratings = histories.ratings
    return [
      UserEvent(
        row=int(histories.rows[i]),
        title=self.title(histories.rows[i]),
        time=int(histories.times[i]),
        rating=None if ratings is None else float(ratings[i]),
      )
      for i in found
    ]

  def _user(self, id: str) -> int:
    return row_of(self.task.histories.users.ids, id, "user")

  def _hits_of_user(
    self, histories: Histories, row: int, k: int, approximate: bool
  ) -> list[Hit]:
    """Return the best next items for the user of a row after all events."""
    begin, end = histories.offsets[row : row + 2]
    max_history = self.task.config.data.histories.max_history
    before = next_item.users_before(
      histories, np.array([row]), np.array([end]), max_history
    )
    (vector,) = self.task.users(self._params, self.items, before)
    return self._hits(vector, self.items, k, histories.rows[begin:end], approximate)

  def _hits(
    self,
    vector: Float[np.ndarray, "d"],
    items: Float[np.ndarray, "i d"],
    k: int,
    seen: Int[np.ndarray, "n"],
    approximate: bool,
  ) -> list[Hit]:
    left_out = Ragged(seen, np.array([0, len(seen)]))
    found = nearest(vector[None], items, k, left_out, approximate=approximate)
    scores, rows = (array[0].tolist() for array in found)
    ids = self.task.histories.items.ids
    return [
      Hit(rank, score, row, str(ids[row]), self.title(row), int(self._events[row]))
      for rank, (score, row) in enumerate(zip(scores, rows, strict=True), 1)
      if row >= 0
    ]

  @functools.cached_property
  def _directions(self) -> Float[np.ndarray, "i d"]:
    """Vectors of items scaled to length 1; zero vectors stay zero."""
    lengths = np.linalg.norm(self.items, axis=1, keepdims=True)
    return self.items / np.where(lengths > 0, lengths, 1)
