import dataclasses

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from deepsets_jax.data.tables.batching import (
  Batcher,
  Budget,
  EpochPlan,
  SetDropout,
  lengths_of,
)
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.models import set_model
from deepsets_jax.models.config import set_fusion
from deepsets_jax.ragged import from_lengths
from deepsets_jax.tasks import defaults
from deepsets_jax.training import evaluation, losses, sharding
from deepsets_jax.training import step as train_step

SHARDS = 8
BUDGET = Budget(2, {"image": 12, "word": 16})
SCHEMA = Schema(
  {"image": Modality("vectors", 5), "word": Modality("tokens", 11, weighted=True)},
  Target("multilabel", 3),
)


def make_table(n: int = 100, seed: int = 0) -> Table:
  """Random examples whose labels depend on their numbers of elements."""
  rng = np.random.default_rng(seed)
  images, words = rng.integers(0, 5, n), rng.integers(0, 6, n)
  image = from_lengths(rng.normal(size=(images.sum(), 5)).astype(np.float32), images)
  word = from_lengths(rng.integers(0, 11, words.sum()).astype(np.int32), words)
  word = word.replace(weights=rng.random(words.sum()).astype(np.float32))
  targets = np.stack([images > 2, words > 3, images + words > 4], axis=1)
  return Table(
    schema=SCHEMA,
    modalities={"image": image, "word": word},
    targets=targets.astype(np.float32),
    ids=np.array([f"row {i}" for i in range(n)]),
  )


def mesh_of(devices: int) -> jax.sharding.Mesh:
  return jax.make_mesh(
    (devices,),
    (sharding.AXIS,),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=jax.devices()[:devices],
  )


def model_config(**changes) -> ml_collections.ConfigDict:
  config = defaults.supervised().model
  config.update(features=8)
  config.set_pool.pools = ("sum", "max")
  config.head.update(hidden=(8,), dropout=0.2, input_norm=True)
  config.update(changes)
  return config


@dataclasses.dataclass
class Trainer:
  """A small run: its parts, and how to run a few steps of it."""

  devices: int = 8
  ema_decay: float | None = 0.9
  absence: SetDropout | None = SetDropout(0.2, 0.2, seed=0)  # noqa: RUF009, it is frozen.
  config: ml_collections.ConfigDict = dataclasses.field(default_factory=model_config)

  def __post_init__(self):
    self.traces = 0
    self.mesh = mesh_of(self.devices)
    self.table = make_table()
    self.model = set_model.build_set_model(self.config, SCHEMA, [0.0, 0.0, 0.0])
    self.loss = losses.build_loss(
      SCHEMA.target,
      self.table.targets,
      regression="absolute",
      label_smoothing=0.0,
      balance=0.0,
    )
    self.tx = optax.adamw(1e-2)
    self.plan = EpochPlan(
      lengths_of(self.table), len(self.table), BUDGET, SHARDS, seed=0
    )
    self.batcher = Batcher(self.table, BUDGET, self.absence)
    self.step = train_step.build_step(
      train_step.supervised(self._apply, self.loss),
      self.tx,
      self.mesh,
      ema_decay=self.ema_decay,
    )

  def _apply(self, *arguments, **keywords):
    self.traces += 1
    return self.model.apply(*arguments, **keywords)

  def batch(self, step: int):
    return self.batcher.batch(self.plan.rows(step), step)

  def init(self):
    modalities = jax.tree.map(lambda x: x[0], self.batch(0).modalities)
    params = self.model.init(jax.random.key(0), modalities)["params"]
    state = train_step.init_state(
      params, self.tx, jax.random.key(1), average=self.ema_decay is not None
    )
    return jax.device_put(state, sharding.replicated(self.mesh))

  def run(self, steps: int, state=None, start: int = 0):
    state, metrics = self.init() if state is None else state, []
    for step in range(start, steps):
      state, values = self.step(state, sharding.put(self.batch(step), self.mesh))
      metrics.append(jax.device_get(values))
    return state, metrics


@pytest.fixture(scope="module")
def on_eight():
  trainer = Trainer(devices=8)
  state, metrics = trainer.run(steps=12)
  return trainer, jax.device_get(state.params), metrics


def test_losses_on_one_device_equal_those_on_eight(on_eight):
  # With one device its eight shards are accumulated; dropout and absence included.
  _, params, metrics = on_eight
  state, alone = Trainer(devices=1).run(steps=12)
  for name in ("loss", "gradient_norm", "examples"):
    np.testing.assert_allclose(
      [n[name] for n in alone], [n[name] for n in metrics], rtol=1e-5
    )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-4), state.params, params
  )


def test_a_step_is_one_all_reduce(on_eight):
  trainer, _, _ = on_eight
  batch = sharding.put(trainer.batch(0), trainer.mesh)
  text = trainer.step.lower(trainer.init(), batch).compile().as_text()
  assert text.count(" all-reduce(") + text.count(" all-reduce-start(") == 1
  for other in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
    assert f" {other}" not in text


def test_a_run_is_one_trace():
  trainer = Trainer()
  epoch = trainer.plan.steps_per_epoch()
  trainer.run(steps=epoch + 2)  # Into the second epoch.
  # One trace of value and gradient; the single shard of a device needs no other.
  assert trainer.traces == 1


def test_a_step_agrees_with_one_big_batch_without_shards(on_eight):
  trainer = Trainer(ema_decay=None, config=model_config(head=dict(dropout=0.0)))
  state = trainer.init()
  params = jax.device_get(state.params)
  batch = trainer.batch(0)
  shards = [
    jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), batch) for i in range(SHARDS)
  ]

  def mean_loss(params):
    sums = [
      trainer.loss(
        trainer.model.apply({"params": params}, shard.modalities),
        shard.targets,
        shard.weights,
      )
      for shard in shards
    ]
    return sum(s for s, _ in sums) / sum(w for _, w in sums)

  loss, grads = jax.value_and_grad(mean_loss)(params)
  with jax.numpy_dtype_promotion("standard"):
    updates, _ = trainer.tx.update(grads, trainer.tx.init(params), params)
  want = optax.apply_updates(params, updates)
  state, metrics = trainer.step(state, sharding.put(batch, trainer.mesh))
  np.testing.assert_allclose(metrics["loss"], loss, 1e-5)
  np.testing.assert_allclose(metrics["gradient_norm"], optax.tree.norm(grads), 1e-4)
  assert metrics["examples"] == batch.weights.sum()
  # Adam's first step is the sign of the gradient, times the rate.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-4),
    jax.device_get(state.params),
    want,
  )


def test_average_follows_the_parameters():
  trainer = Trainer(ema_decay=0.9)
  state = trainer.init()
  average = jax.device_get(state.params)
  for step in range(3):
    state, _ = trainer.step(state, sharding.put(trainer.batch(step), trainer.mesh))
    decay = min(0.9, (2 + step) / (11 + step))
    average = jax.tree.map(
      lambda a, p, d=decay: d * a + (1 - d) * p, average, jax.device_get(state.params)
    )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5),
    jax.device_get(state.eval_params),
    average,
  )


@pytest.mark.parametrize("fusion", ["set_pool", "concat"])
def test_it_learns_in_bfloat16_too(fusion):
  config = model_config(dtype="bfloat16", head=dict(dropout=0.0))
  settings = {"set_pool": dict(use_size=True), "concat": {}}
  set_fusion(config, fusion, pools=("sum",), **settings[fusion])
  state, metrics = Trainer(config=config, absence=None).run(steps=80)
  losses_ = [n["loss"] for n in metrics]
  assert np.mean(losses_[-6:]) < 0.8 * np.mean(losses_[:6])
  assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}


def test_gradients_are_finite_with_nothing_in_a_batch():
  trainer = Trainer()
  empty = jax.tree.map(np.zeros_like, trainer.batch(0))
  state, metrics = trainer.step(trainer.init(), sharding.put(empty, trainer.mesh))
  assert np.isfinite(metrics["loss"]) and np.isfinite(metrics["gradient_norm"])
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))


@pytest.mark.parametrize(
  ("devices", "shards", "rows"), [(1, 1, 37), (8, 8, 3), (8, 16, 50)]
)
def test_evaluation_takes_each_example_once_on_any_devices(devices, shards, rows):
  trainer = Trainer(devices=devices)
  table = make_table(rows)
  params = trainer.init().params
  predict = evaluation.build_predict(trainer.model.apply, trainer.mesh)
  got = evaluation.predict(predict, params, table, BUDGET, shards, trainer.mesh)
  assert got.shape == (rows, 3)
  one = Budget(1, BUDGET.slots)
  apply = jax.jit(trainer.model.apply)
  for row in (0, rows // 2, rows - 1):
    batch = Batcher(table, one).batch([np.array([row])])
    modalities = jax.tree.map(lambda x: jnp.asarray(x[0]), batch.modalities)
    want = apply({"params": jax.device_get(params)}, modalities)[0]
    np.testing.assert_allclose(got[row], want, 1e-4, 1e-5)


def test_shards_that_devices_do_not_divide_are_refused():
  with pytest.raises(ValueError, match="config.data.shards 12 .* 8 devices"):
    sharding.check_shards(12)
