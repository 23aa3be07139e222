"""Eight fake devices, strict types and ranks, checked shapes, quick hypotheses."""

import gc
import os
import pathlib

import hypothesis
import jax
import jaxtyping
import pytest

# Tests are of eight CPU devices, also where there is a GPU; those marked gpu run with
# JAX_PLATFORMS=cuda,cpu python -m pytest -m gpu
if "JAX_PLATFORMS" not in os.environ:
  jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Shape annotations are tests where arrays come in by the front door; not on structs,
# which trees build of other things than arrays.
jaxtyping.install_import_hook(
  [
    "deepsets_jax.ragged.monoids",
    "deepsets_jax.ragged.ordering",
    "deepsets_jax.ragged.pooling",
    "deepsets_jax.ragged.segments",
    "deepsets_jax.training.losses",
  ],
  "beartype.beartype",
)

# Tracing takes the time, so tests hold their shapes to a few.
hypothesis.settings.register_profile(
  "quick", max_examples=20, deadline=None, derandomize=True
)
hypothesis.settings.load_profile("quick")

# Every compiled function holds memory maps, of which Linux allows a process 65,530;
# beyond these the compiler crashes.
_MAPS = pathlib.Path("/proc/self/maps")
_MANY_MAPS = 20_000


@pytest.fixture(autouse=True, scope="module")
def few_memory_maps():
  """Frees compiled functions after a module, once there are many."""
  yield
  if _MAPS.exists() and _MAPS.read_text().count("\n") > _MANY_MAPS:
    jax.clear_caches()
    gc.collect()
