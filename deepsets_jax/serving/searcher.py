"""A finished run of recall, asked by hand: what a user comes to, and what is alike.

  searcher = Searcher("runs/movielens_retrieval")
  searcher.user("1", k=5)
  searcher.history(["Star Wars (1977)", "Alien (1979)"])
  searcher.item("Toy Story (1995)")

Each gives `Hit`s, the best first.
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

# Seconds between the events of a history that is typed, which has no times.
APART = 60


@dataclasses.dataclass(frozen=True)
class Hit:
  """An item that was found.

  Attributes:
    rank: From 1.
    score: The product of the vectors, or their cosine.
    row: In the table of items.
    id: Of the item.
    title: To be printed.
    events: Number of the item's training events: how popular it is.
  """

  rank: int
  score: float
  row: int
  id: str
  title: str
  events: int


@dataclasses.dataclass(frozen=True)
class Event:
  """An event of a user.

  Attributes:
    row: Of the item.
    title: Of the item.
    time: In seconds since 1970.
    rating: None where events are clicks.
  """

  row: int
  title: str
  time: int
  rating: float | None


class Searcher:
  """A run of recall at its best checkpoint, with the vectors of its items."""

  def __init__(
    self,
    workdir: str | pathlib.Path,
    embeddings: str | pathlib.Path | None = None,
  ):
    """The searcher.

    Args:
      workdir: Folder of the run.
      embeddings: Folder that experiments.embed has written for this run, to read the
        vectors of the items from; None computes them.

    Raises:
      ConfigError: See `tasks.load_task` and `embeddings.digest`.
      DataError: The files are missing, or of another run.
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
    """What the scores of `user` and `history` are: "product" or "cosine"."""
    return "cosine" if self.task.config.retrieval.normalize else "product"

  def user(self, id: str, k: int = 10, *, approximate: bool = False) -> list[Hit]:
    """The items that a user of the data comes to after all its events.

    Those that it has come to already are left out: there may be fewer than `k`.

    Args:
      id: Of the user.
      k: Number of items.
      approximate: See `nearest.nearest`.

    Raises:
      ConfigError: No such user, or `k` is out of range.
    """
    row = self._user(id)
    return self._of_user(self.task.histories, row, k, approximate)

  def history(
    self,
    titles: Sequence[str],
    k: int = 10,
    *,
    fields_of: str | None = None,
    approximate: bool = False,
  ) -> list[Hit]:
    """The items that a user comes to after some items, which are left out.

    Args:
      titles: See `row`; the oldest first. As if come to a minute apart; none at all for
        a user without a history.
      k: Number of items.
      fields_of: Id of a user of the data whose fields are taken; by default there are
        none.
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
    return self._of_user(typed, 0, k, approximate)

  def item(self, title: str, k: int = 10, *, approximate: bool = False) -> list[Hit]:
    """The items whose vectors have the largest cosine with an item's, without itself.

    Raises:
      ConfigError: See `row`; or nothing is known of the item; or `k` is out of range.
    """
    row = self.row(title)
    items = self.task.histories.items
    if not any(items.lengths_of(name, row) for name in items.modalities):
      raise ConfigError(
        f"nothing is known of {self.title(row)!r}: it has {self._events[row]} training"
        " events, and no field that the run reads"
      )
    seen = np.array([row])
    vector = self._directions[row]
    return self._hits(vector, self._directions, k, seen, approximate)

  def row(self, title: str) -> int:
    """The row of an item by its title, see `titles.Titles.row`.

    Raises:
      ConfigError: No item is called so, or several; names candidates.
    """
    return self._titles.row(title)

  def title(self, row: int) -> str:
    """The title of an item."""
    return str(self.task.titles[row])

  def events(self, id: str) -> list[Event]:
    """All events of a user, by time.

    Raises:
      ConfigError: No such user.
    """
    histories, user = self.task.histories, self._user(id)
    found = range(*histories.offsets[user : user + 2])
    ratings = histories.ratings
    return [
      Event(
        row=int(histories.rows[i]),
        title=self.title(histories.rows[i]),
        time=int(histories.times[i]),
        rating=None if ratings is None else float(ratings[i]),
      )
      for i in found
    ]

  def _user(self, id: str) -> int:
    return row_of(self.task.histories.users.ids, id, "user")

  def _of_user(
    self, histories: Histories, row: int, k: int, approximate: bool
  ) -> list[Hit]:
    """What the user of a row comes to after all its events."""
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
    """The vectors of items scaled to length 1; zero stays zero."""
    lengths = np.linalg.norm(self.items, axis=1, keepdims=True)
    return self.items / np.where(lengths > 0, lengths, 1)
