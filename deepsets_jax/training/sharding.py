"""The mesh and where arrays live on it: one axis, "data", of all devices."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import PyTree

from deepsets_jax.foundation.errors import ConfigError

AXIS = "data"


def make_mesh() -> jax.sharding.Mesh:
  """A mesh of all devices along one axis."""
  return jax.make_mesh(
    (jax.device_count(),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,)
  )


def replicated(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
  """The same value on every device: parameters."""
  return jax.NamedSharding(mesh, jax.P())


def by_shard(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
  """The leading shard axis spread over the devices: batches."""
  return jax.NamedSharding(mesh, jax.P(AXIS))


def put(batch: PyTree, mesh: jax.sharding.Mesh) -> PyTree:
  """The batch on the devices, from this process's own shards (host arrays)."""
  sharding = by_shard(mesh)
  if jax.process_count() == 1:
    return jax.device_put(batch, sharding)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
  )


def check_shards(num_shards: int) -> int:
  """Number of shards each device takes in turn: gradient accumulation if above 1.

  Raises:
    ConfigError: The devices do not divide the shards.
  """
  devices = jax.device_count()
  if num_shards % devices:
    raise ConfigError(
      f"config.data.shards {num_shards} is not a multiple of the {devices} devices"
    )
  return num_shards // devices


def is_main_process() -> bool:
  """Whether this process is the one that writes and prints what all have in common."""
  return jax.process_index() == 0
