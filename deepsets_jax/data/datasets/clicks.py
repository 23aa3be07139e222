"""The data set "clicks": your own folder of events, and perhaps users and items."""

from __future__ import annotations

from absl import logging
from ml_collections import config_dict

from deepsets_jax.data.datasets.entry import DatasetEntry
from deepsets_jax.data.interactions.click_logs import load_click_logs

SETTINGS = config_dict.create(
  # Column of the user's id, in the events and in the file of users.
  user="user",
  # Column of the item's id, in the events and in the file of items.
  item="item",
  # Column of the time: dates, timestamps, or seconds since 1970.
  time="time",
  # Column of the rating, a number. Without this column events are clicks.
  rating="rating",
)

ENTRY = DatasetEntry(
  settings=SETTINGS,
  load_histories=lambda config: load_click_logs(
    config.path, **config.clicks, report=logging.warning
  ),
)
