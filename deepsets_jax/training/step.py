"""The training step: state and batch in, state and numbers out, one all-reduce."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from deepsets_jax.ragged import Batch
from deepsets_jax.training.losses import Loss
from deepsets_jax.training.sharding import AXIS


@flax.struct.dataclass
class State:
  """All that training changes, and the key it starts from.

  Attributes:
    step: Number of steps taken.
    params: Of the model, float32.
    opt_state: Of the optimizer.
    average: Exponential moving average of `params`, or None.
    key: Never changes; the key of a step is folded from it.
  """

  step: Int[Array, ""]
  params: PyTree
  opt_state: PyTree
  average: PyTree | None
  key: Array

  @property
  def eval_params(self) -> PyTree:
    """The parameters to evaluate and to keep: the average where there is one."""
    return self.params if self.average is None else self.average


# Of parameters, shard and key to the summed loss and its weight.
Objective = Callable[[PyTree, PyTree, Array], tuple[Array, Array]]
Step = Callable[[State, PyTree], tuple[State, dict[str, Array]]]


def supervised(apply: Callable[..., Array], loss: Loss) -> Objective:
  """The objective of a model (its `apply`) whose output has targets; see `losses`."""

  def objective(params: PyTree, shard: Batch, key: Array) -> tuple[Array, Array]:
    logits = apply(
      {"params": params}, shard.modalities, train=True, rngs={"dropout": key}
    )
    return loss(logits, shard.targets, shard.weights)

  return objective


def init_state(
  params: PyTree, optimizer: optax.GradientTransformation, key: Array, *, average: bool
) -> State:
  """The state before the first step."""
  return State(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    average=jax.tree.map(jnp.copy, params) if average else None,
    key=key,
  )


def build_step(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
  *,
  ema_decay: float | None = None,
  together: bool = False,
) -> Step:
  """The jitted step; its state is donated.

  A device takes its shards one after the other (gradient accumulation), and all
  devices add up gradients, loss and weight in one all-reduce. What is random depends
  on the step and on the shard, not on the device.

  Args:
    objective: Of a shard; what is random in it comes from its key.
    optimizer: See `optimizer`.
    mesh: See `sharding`.
    ema_decay: Of the moving average, approached as (1 + t) / (10 + t); None for none.
    together: Whether the objective takes all shards of a device at once, `[s, ...]`
      with a key each, and may look at those of other devices. It needs their memory.
  """
  sums_of = _at_once if together else _accumulate

  def device_step(state: State, batch: PyTree) -> tuple[State, dict[str, Array]]:
    sums = sums_of(_sums(objective), state, batch)
    grads, total, weight = jax.lax.psum(sums, AXIS)
    scale = 1 / jnp.maximum(weight, 1)
    grads = jax.tree.map(lambda g: g * scale, grads)
    numbers = {
      "loss": total * scale,
      "gradient_norm": optax.tree.norm(grads),
      "examples": weight,
    }
    return _updated(state, grads, optimizer, ema_decay), numbers

  sharded = jax.shard_map(
    device_step,
    mesh=mesh,
    in_specs=(jax.P(), jax.P(AXIS)),
    out_specs=(jax.P(), jax.P()),
  )
  return jax.jit(sharded, donate_argnums=0)


def _sums(objective: Objective) -> Callable[..., Any]:
  """The function of parameters, batch and key to (gradients, loss, weight), summed."""

  def sums(params: PyTree, batch: PyTree, key: Array) -> tuple:
    (total, weight), grads = jax.value_and_grad(objective, has_aux=True)(
      params, batch, key
    )
    return grads, total, weight

  return sums


def _own(state: State, batch: PyTree) -> tuple[PyTree, Array, int, Array]:
  """This device's parameters, key of the step, number of shards, index of the first."""
  # Marked as varying, or each parameter's gradient would get an all-reduce.
  params = jax.lax.pcast(state.params, AXIS, to="varying")
  key = jax.random.fold_in(state.key, state.step)
  num_shards = jax.tree.leaves(batch)[0].shape[0]
  return params, key, num_shards, jax.lax.axis_index(AXIS) * num_shards


def _at_once(sums: Callable[..., Any], state: State, batch: PyTree) -> Any:
  """The sums over this device's shards, which the objective takes all at once."""
  params, key, num_shards, first = _own(state, batch)
  shards = first + jnp.arange(num_shards, dtype=jnp.int32)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, shards)
  return sums(params, batch, keys)


def _accumulate(sums: Callable[..., Any], state: State, batch: PyTree) -> Any:
  """The sums over this device's shards, one after the other."""
  params, key, num_shards, first = _own(state, batch)

  def of_shard(index, shard):
    return sums(params, shard, jax.random.fold_in(key, first + index))

  def add(total, indexed):
    return jax.tree.map(jnp.add, total, of_shard(*indexed)), None

  if num_shards == 1:
    return of_shard(0, jax.tree.map(lambda x: x[0], batch))
  indexed = (jnp.arange(num_shards, dtype=jnp.int32), batch)
  shapes = jax.eval_shape(of_shard, *jax.tree.map(lambda x: x[0], indexed))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  zeros = jax.lax.pcast(zeros, AXIS, to="varying")
  return jax.lax.scan(add, zeros, indexed)[0]


def _updated(
  state: State,
  grads: PyTree,
  optimizer: optax.GradientTransformation,
  ema_decay: float | None,
) -> State:
  with jax.numpy_dtype_promotion("standard"):  # Adam's bias correction mixes types.
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  state = state.replace(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    opt_state=opt_state,
  )
  return state.replace(average=_averaged(state, ema_decay))


def _averaged(state: State, decay: float | None) -> PyTree | None:
  if decay is None:
    return None
  step = state.step.astype(jnp.float32)
  decay = jnp.minimum(decay, (1 + step) / (10 + step))
  return optax.incremental_update(state.params, state.average, 1 - decay)
