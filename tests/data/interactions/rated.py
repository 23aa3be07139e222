"""The shop of `clicks` with ratings: half of the users like what the others dislike.

Users have no fields, only their earlier ratings.
"""

import dataclasses

import numpy as np

from tests.data.interactions import clicks


def make_histories(**settings):
  """Clicks with ratings 1 to 5 by item row; every second user reverses them."""
  histories = clicks.make_histories(**settings)
  users = np.repeat(np.arange(len(histories.users)), histories.lengths())
  ratings = 1.0 + histories.rows % 5
  # Every circle has users of both kinds.
  ratings = np.where(users // clicks.CIRCLES % 2, ratings, 6 - ratings)
  return dataclasses.replace(histories, ratings=ratings.astype(np.float32))


def make_source(**settings):
  """A catalog of `make_histories`, as `registry.load_histories` returns it."""
  source = clicks.make_source(**settings)
  source.histories = make_histories(**settings)
  return source
