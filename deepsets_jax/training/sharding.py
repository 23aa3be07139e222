"""The device mesh, with one axis "data", and the placement of arrays on it."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import PyTree

from deepsets_jax.foundation.errors import ConfigError

AXIS = "data"


def make_mesh() -> jax.sharding.Mesh:
  """Build a mesh of all devices along one axis."""
  return jax.make_mesh(
    (jax.device_count(),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,)
  )


def replicated(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
  """Sharding of parameters: every device holds a copy."""
  return jax.NamedSharding(mesh, jax.P())


def by_shard(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
  """Sharding of batches: the leading shard axis is split over the devices."""
  return jax.NamedSharding(mesh, jax.P(AXIS))


def put(batch: PyTree, mesh: jax.sharding.Mesh) -> PyTree:
  """Put a batch on the devices, given this process's shards as host arrays."""
  sharding = by_shard(mesh)
  if jax.process_count() == 1:
    return jax.device_put(batch, sharding)
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
  )


def abstract(tree: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
  """Shapes, types and the sharding of arrays."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
  )


def abstract_batch(one: PyTree, shards: int, mesh: jax.sharding.Mesh) -> PyTree:
  """Shapes, types and sharding of a batch of all processes.

  Args:
    one: A batch of one shard on the host.
    shards: Number of shards of the batch, over all devices.
    mesh: Mesh of all devices.
  """
  one = jax.eval_shape(lambda batch: batch, one)  # On devices int64 becomes int32.
  batch = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((shards, *x.shape[1:]), x.dtype), one
  )
  return abstract(batch, by_shard(mesh))


def shard_shapes(batch: PyTree) -> PyTree:
  """Shapes and types of one shard of a batch."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)


def check_shards(num_shards: int) -> int:
  """Number of shards per device; above 1, their gradients are accumulated.

  Raises:
    ConfigError: The number of shards is not a multiple of the number of devices.
  """
  devices = jax.device_count()
  if num_shards % devices:
    raise ConfigError(
      f"config.data.shards {num_shards} is not a multiple of the {devices} devices;"
      " choose a multiple"
    )
  return num_shards // devices


def is_main_process() -> bool:
  """Whether this process writes the files and prints for all processes."""
  return jax.process_index() == 0
