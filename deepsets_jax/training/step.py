"""The training step: (state, batch) -> (state, metrics), with one all-reduce."""

from __future__ import annotations

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Batch
from deepsets_jax.training.losses import Loss
from deepsets_jax.training.sharding import AXIS, replicated


@flax.struct.dataclass
class State:
  """Everything that a training step changes, and the random key of the run.

  Attributes:
    step: Number of steps taken.
    params: Parameters of the model, float32.
    opt_state: State of the optimizer.
    average: Exponential moving average of `params`, or None.
    key: Random key of the run. It never changes: each step folds its number into it.
  """

  step: Int[Array, ""]
  params: PyTree
  opt_state: PyTree
  average: PyTree | None
  key: Array

  @property
  def eval_params(self) -> PyTree:
    """Parameters to evaluate: the moving average if there is one."""
    return self.params if self.average is None else self.average


# (params, shard, key) -> (summed loss, weight).
Objective = Callable[[PyTree, PyTree, Array], tuple[Array, Array]]
Step = Callable[[State, PyTree], tuple[State, dict[str, Array]]]


def supervised(apply: Callable[..., Array], loss: Loss) -> Objective:
  """Build the objective of a model that predicts the targets of its examples.

  Args:
    apply: `model.apply` of a model that maps modalities to logits `[b, k]`.
    loss: See `losses.build_loss`.
  """

  def objective(params: PyTree, shard: Batch, key: Array) -> tuple[Array, Array]:
    logits = apply(
      {"params": params}, shard.modalities, train=True, rngs={"dropout": key}
    )
    return loss(logits, shard.targets, shard.weights)

  return objective


def init_state(
  params: PyTree, optimizer: optax.GradientTransformation, key: Array, *, average: bool
) -> State:
  """The state before the first step, with a moving average if `average`."""
  return State(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    average=jax.tree.map(jnp.copy, params) if average else None,
    key=key,
  )


def build_init(
  init_params: Callable[[Array], PyTree],
  optimizer: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
  *,
  seed: int,
  average: bool,
) -> Callable[..., State]:
  """Jit a function from a seed to the state before the first step, on all devices.

  Args:
    init_params: Random key -> parameters.
    optimizer: See `optimizer.build_optimizer`.
    mesh: See `sharding.make_mesh`.
    seed: Default seed.
    average: Whether the state has a moving average.

  Raises:
    ConfigError: A module refuses its settings.
  """

  def init(seed: int = seed) -> State:
    init_key, step_key = jax.random.split(jax.random.key(seed))
    return init_state(init_params(init_key), optimizer, step_key, average=average)

  init = jax.jit(init, out_shardings=replicated(mesh))
  try:
    jax.eval_shape(init)  # Modules raise the errors of their settings here.
  except ConfigError:
    raise
  except ValueError as error:
    message = str(error).split("\n---")[0]  # JAX adds a note on its own frames.
    raise ConfigError(f"config.model: {message}") from error
  return init


def build_step(
  objective: Objective,
  optimizer: optax.GradientTransformation,
  mesh: jax.sharding.Mesh,
  *,
  ema_decay: float | None = None,
  together: bool = False,
) -> Step:
  """Build the jitted training step.

  Each device processes its shards one after the other (gradient accumulation). One
  all-reduce adds the gradients, losses and weights of all devices, so that all examples
  count equally. Random numbers depend on step and shard, not on the number of devices.

  Args:
    objective: Loss of a shard; takes its random numbers from the key.
    optimizer: See `optimizer.build_optimizer`.
    mesh: See `sharding.make_mesh`.
    ema_decay: Decay of the moving average of the parameters, which it approaches as
      (1 + t) / (10 + t) after t steps; None for no average.
    together: The objective takes all shards of a device at once, `[s, ...]` with one
      key each, and may use collectives. This needs the memory of all of them.

  Returns:
    (state, batch `[s, ...]`) -> (state, metrics "loss", "gradient_norm", "examples").
    The state that is passed in is donated.
  """

  def device_step(state: State, batch: PyTree) -> tuple[State, dict[str, Array]]:
    with jax.named_scope("gradients"):
      sums = accumulate_gradients(objective, state, batch, together=together)
    with jax.named_scope("all_reduce"):
      grads, loss, weight = jax.lax.psum(sums, AXIS)
      scale = 1 / jnp.maximum(weight, 1)  # A batch may hold nothing but padding.
      grads = jax.tree.map(lambda g: g * scale, grads)
    metrics = {
      "loss": loss * scale,
      "gradient_norm": optax.tree.norm(grads),
      "examples": weight,
    }
    with jax.named_scope("update"):
      state = _updated(state, grads, optimizer, ema_decay)
    return state, metrics

  sharded = jax.shard_map(
    device_step,
    mesh=mesh,
    in_specs=(jax.P(), jax.P(AXIS)),
    out_specs=(jax.P(), jax.P()),
  )
  return jax.jit(sharded, donate_argnums=0)


def accumulate_gradients(
  objective: Objective, state: State, batch: PyTree, *, together: bool
) -> tuple[PyTree, Array, Array]:
  """Sum gradients, loss and weight over the shards of this device.

  Args:
    objective: See `build_step`.
    state: State before the step.
    batch: The shards of this device, `[s, ...]`.
    together: Pass all shards to the objective at once instead of one after the other.
  """
  # Marked as varying over the devices: the gradient of each replicated parameter would
  # get an all-reduce of its own.
  local_params = jax.lax.pcast(state.params, AXIS, to="varying")
  value_and_grad = jax.value_and_grad(objective, has_aux=True)

  def shard_fn(shard: PyTree, key: Array) -> tuple[PyTree, Array, Array]:
    (loss, weight), grads = value_and_grad(local_params, shard, key)
    return grads, loss, weight

  num_shards = jax.tree.leaves(batch)[0].shape[0]
  first = jax.lax.axis_index(AXIS) * num_shards
  shards = first + jnp.arange(num_shards, dtype=jnp.int32)
  step_key = jax.random.fold_in(state.key, state.step)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, shards)
  if together:
    return shard_fn(batch, keys)
  first_shard = jax.tree.map(lambda x: x[0], (batch, keys))
  if num_shards == 1:  # Saves the loop and a second trace of the objective.
    return shard_fn(*first_shard)
  shapes = jax.eval_shape(shard_fn, *first_shard)
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  zeros = jax.lax.pcast(zeros, AXIS, to="varying")

  def add(sums: PyTree, shard: tuple[PyTree, Array]) -> tuple[PyTree, None]:
    return jax.tree.map(jnp.add, sums, shard_fn(*shard)), None

  return jax.lax.scan(add, zeros, (batch, keys))[0]


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
  if ema_decay is None:
    return state
  step = state.step.astype(jnp.float32)
  decay = jnp.minimum(ema_decay, (1 + step) / (10 + step))
  average = optax.incremental_update(state.params, state.average, 1 - decay)
  return state.replace(average=average)
