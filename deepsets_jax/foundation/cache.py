"""Where what can be made or fetched again is kept."""

from __future__ import annotations

import os
import pathlib


def folder(kind: str) -> pathlib.Path:
  """The folder for one kind of thing, which need not be there yet.

  In that of the environment variable `DEEPSETS_JAX_CACHE`, by default
  `~/.cache/deepsets_jax`; it may be removed at any time.
  """
  root = os.environ.get("DEEPSETS_JAX_CACHE")
  kept = pathlib.Path(root) if root else pathlib.Path.home() / ".cache/deepsets_jax"
  return kept / kind
