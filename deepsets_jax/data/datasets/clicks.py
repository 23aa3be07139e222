"""The data set "clicks": your own folder of events, and perhaps users and items."""

from __future__ import annotations

from absl import logging

from deepsets_jax.data.datasets.entry import DatasetEntry
from deepsets_jax.data.interactions.click_logs import load_click_logs

ENTRY = DatasetEntry(
  load_histories=lambda config: load_click_logs(
    config.path, **config.clicks, report=logging.warning
  )
)
