"""The shop of `clicks` with ratings: one half of the users likes what others do not.

Nothing is known of the users but how they rated before.
"""

import dataclasses

import numpy as np

from tests.data.interactions import clicks


def make_histories(**settings):
  """Clicks, rated from 1 to 5: items by their row, by each second user in reverse."""
  histories = clicks.make_histories(**settings)
  users = np.repeat(np.arange(len(histories.users)), histories.lengths())
  ratings = 1.0 + histories.rows % 5
  # Both in every circle.
  ratings = np.where(users // clicks.CIRCLES % 2, ratings, 6 - ratings)
  return dataclasses.replace(histories, ratings=ratings.astype(np.float32))


def make_source(**settings):
  """What `sources.load_histories` gives, of `make_histories`."""
  source = clicks.make_source(**settings)
  source.histories = make_histories(**settings)
  return source
