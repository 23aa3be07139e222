"""The training step: state and batch in, state and numbers out, one all-reduce."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from deepsets_jax.losses import Loss
from deepsets_jax.ragged import Batch
from deepsets_jax.sharding import AXIS


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


Step = Callable[[State, Batch], tuple[State, dict[str, Array]]]


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


def build(
  apply: Callable[..., Array],
  loss: Loss,
  optimizer: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
  *,
  ema_decay: float | None = None,
) -> Step:
  """The jitted step; its state is donated.

  A device takes its shards one after the other (gradient accumulation), and all
  devices add up gradients, loss and weight in one all-reduce. What is random depends
  on the step and on the shard, not on the device.

  Args:
    apply: `model.apply`.
    loss: See `losses`.
    optimizer: See `optimizer`.
    mesh: See `sharding`.
    ema_decay: Of the moving average, approached as (1 + t) / (10 + t); None for none.
  """

  def device_step(state: State, batch: Batch) -> tuple[State, dict[str, Array]]:
    sums = _accumulate(_shard_sums(apply, loss), state, batch)
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


def _shard_sums(apply: Callable[..., Array], loss: Loss) -> Callable[..., Any]:
  """The function of parameters, shard and key to (gradients, loss, weight), summed."""

  def shard_sums(params: PyTree, shard: Batch, key: Array) -> tuple:
    def weighted_sum(params):
      logits = apply(
        {"params": params}, shard.modalities, train=True, rngs={"dropout": key}
      )
      return loss(logits, shard.targets, shard.weights)

    (total, weight), grads = jax.value_and_grad(weighted_sum, has_aux=True)(params)
    return grads, total, weight

  return shard_sums


def _accumulate(shard_sums: Callable[..., Any], state: State, batch: Batch) -> Any:
  """The sums over this device's shards, one after the other."""
  # Marked as varying, or each parameter's gradient would get an all-reduce.
  params = jax.lax.pcast(state.params, AXIS, to="varying")
  key = jax.random.fold_in(state.key, state.step)
  num_shards = batch.weights.shape[0]
  first = jax.lax.axis_index(AXIS) * num_shards

  def of_shard(index, shard):
    return shard_sums(params, shard, jax.random.fold_in(key, first + index))

  def add(sums, indexed):
    return jax.tree.map(jnp.add, sums, of_shard(*indexed)), None

  if num_shards == 1:
    return of_shard(0, jax.tree.map(lambda x: x[0], batch))
  indexed = (jnp.arange(num_shards), batch)
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
