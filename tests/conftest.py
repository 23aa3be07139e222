"""Eight fake devices, strict types and ranks, checked shapes, quick hypotheses."""

import os

import hypothesis
import jax
import jaxtyping

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
    "deepsets_jax.losses",
  ],
  "beartype.beartype",
)

# Tracing takes the time, so tests hold their shapes to a few.
hypothesis.settings.register_profile(
  "quick", max_examples=20, deadline=None, derandomize=True
)
hypothesis.settings.load_profile("quick")
