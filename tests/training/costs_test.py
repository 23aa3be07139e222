"""Costs before training: counts by hand, and independence of shards and devices."""

import dataclasses
import functools
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from deepsets_jax.data.tables import budgets
from deepsets_jax.data.tables.batching import EpochPlan, lengths_of
from deepsets_jax.encoders import DenseEncoder
from deepsets_jax.fusion import Fusion
from deepsets_jax.ragged import pooling
from deepsets_jax.tasks.supervised import run as runs
from deepsets_jax.tasks.supervised.costs import model_costs
from deepsets_jax.training import costs as summary
from deepsets_jax.training import sharding
from tests.training.loop_test import small_config
from tests.training.step_test import mesh_of

SLOTS = {"image": 40, "profile": 40, "ocr": 24, "caption": 32}
EXAMPLES = 2


@functools.cache
def built(shards=8, devices=8, slots=40):
  """A run of shards of one shape."""
  config = small_config(**{f"data.budgets.{k}": n for k, n in SLOTS.items()})
  config.data.budgets.image = slots
  config.data.update(shards=shards, batch_size=shards * EXAMPLES, element_dropout=0.0)
  config.data.modality_dropout = 0.0
  config.model.features = 32
  config.model.dense.update(hidden=(64,), dropout=0.0)
  config.model.head.hidden = (48,)
  with mock.patch.object(sharding, "make_mesh", lambda: mesh_of(devices)):
    return runs.build_run(config)


@functools.cache
def costs(shards=8, devices=8):
  """Costs of the parts of such a run and of its step."""
  run = built(shards, devices)
  parts = model_costs(run)
  return parts, summary.step_costs(run.compile_step(), parts)


def test_parts_add_up():
  parts, _ = costs()
  assert list(parts["parts"])[-2:] == ["fusion", "head"]
  assert sorted(parts["parts"])[:4] == [f"encoders.{name}" for name in sorted(SLOTS)]
  sizes = {
    name: sum(leaf.size for leaf in jax.tree.leaves(subtree))
    for name, subtree in built().abstract_state.params.items()
  }
  assert parts["parts"]["encoders.ocr"]["parameters"] == sizes["encoders_ocr"]
  assert parts["parts"]["head"]["parameters"] == sizes["head"]
  assert parts["parameters"] == sum(sizes.values())
  for key in ("parameters", "flops_per_example"):
    assert parts[key] == pytest.approx(sum(x[key] for x in parts["parts"].values()))
  assert parts["examples_per_shard"] == EXAMPLES


def test_dense_layers_cost_what_a_count_by_hand_gives():
  parts = costs()[0]["parts"]
  # Per slot: the first layer forward and its weights' gradient; of the second also
  # that of what it is given.
  image = SLOTS["image"] / EXAMPLES * 2 * (2 * 64 * 64 + 3 * 64 * 32)
  assert parts["encoders.image"]["flops_per_example"] == pytest.approx(image, rel=0.03)
  head = 2 * 3 * (32 * 48 + 48 * 10)
  assert parts["head"]["flops_per_example"] == pytest.approx(head, rel=0.05)
  # A few operations per slot and feature.
  slots = sum(SLOTS.values()) / EXAMPLES
  assert slots * 32 < parts["fusion"]["flops_per_example"] < 10 * slots * 32


@pytest.mark.parametrize(("shards", "devices"), [(16, 8), (8, 1)])
def test_costs_depend_on_neither_shards_nor_devices(shards, devices):
  (parts, step), (others, other) = costs(), costs(shards, devices)
  assert parts["flops_per_example"] == others["flops_per_example"]
  for name, part in parts["parts"].items():
    assert part == others["parts"][name], name
  # Shards after the first add their gradients to a sum.
  additions = 2 * parts["parameters"] / EXAMPLES
  assert other["flops_per_example"] == pytest.approx(
    step["flops_per_example"], abs=additions
  )
  assert parts["flops_per_example"] < step["flops_per_example"]


def test_empty_slots_cost_as_much_as_full_ones():
  more = model_costs(built(slots=80))["parts"]["encoders.image"]
  image = costs()[0]["parts"]["encoders.image"]
  assert more["fill"] == image["fill"] / 2 and more["slots"] == 2 * image["slots"]
  ratio = more["flops_per_example"] / image["flops_per_example"]
  assert ratio == pytest.approx(2, rel=0.01)


def test_usage_is_that_of_the_slots():
  part = costs()[0]["parts"]["encoders.image"]
  usage = budgets.usage(built().tables["train"], built().budget)["image"]
  assert part.items() >= dataclasses.asdict(usage).items()


def attention_flops(elements):
  return 1e3 * elements.lengths.sum().astype(jnp.float32)


class AttentiveEncoder(DenseEncoder):
  @nn.compact
  def __call__(self, elements, *, train):
    self.sow("cost", "attention_flops", attention_flops(elements))
    self.sow("cost", "attention_flops", attention_flops(elements))  # A second layer.
    return super().__call__(elements, train=train)


class AttentiveFusion(Fusion):
  @nn.compact
  def __call__(self, modalities, *, train):
    self.sow("cost", "attention_flops", sum(map(attention_flops, modalities.values())))
    self.sow("cost", "attention_steps", jnp.ones(()))
    return pooling.pool("max", modalities)


def test_reported_attention_flops_are_added_to_their_part():
  run, (parts, _) = built(), costs()
  model = run.model
  attentive = dataclasses.replace(
    run,
    model=model.clone(
      encoders={**model.encoders, "image": AttentiveEncoder(32, hidden=(64,))},
      fusion=AttentiveFusion(tuple(SLOTS), 32),
    ),
  )
  table = run.tables["train"]
  plan = EpochPlan(lengths_of(table), len(table), run.budget, 1, run.config.seed)
  rows = [row for i in range(8) for row in plan.rows(i)[0]]
  per_example = {name: table.lengths(name)[rows].sum() / len(rows) for name in SLOTS}
  found = model_costs(attentive)
  extra = {
    name: part["flops_per_example"] - parts["parts"][name]["flops_per_example"]
    for name, part in found["parts"].items()
  }
  # Forward and 2.5 times that.
  assert extra.pop("encoders.image") == pytest.approx(2 * 3.5e3 * per_example["image"])
  assert extra.pop("fusion") == pytest.approx(3.5e3 * sum(per_example.values()))
  assert set(extra.values()) == {0}
  reported = found["attention_flops_per_example"]
  assert reported == pytest.approx(
    found["flops_per_example"] - parts["flops_per_example"]
  )
  assert parts["attention_flops_per_example"] == 0
  assert summary.step_costs(_Step(100.0), found)["flops_per_example"] == 50 + reported


class _Step:
  """A compiled step whose backend reports these costs."""

  def __init__(self, flops):
    self._cost = None if flops is None else {"flops": flops}

  def cost_analysis(self):
    return self._cost

  def memory_analysis(self):
    return None


def test_the_table_has_a_line_for_each_part():
  parts, step = costs()
  lines = summary.describe(parts).splitlines()
  assert "slots of a shard of 2 examples" in lines[0] and "fill" in lines[1]
  starts = ["image", "profile", "ocr", "caption", "fusion", "head", "total"]
  assert sorted(line.split()[0] for line in lines[2:]) == sorted(starts)
  assert len({len(line) for line in lines[1:]}) == 1
  assert f"{parts['parameters']:,}" in lines[-1]
  line = summary.describe_step(step)
  assert line.startswith("Compiled step: ") and "FLOPs" in line and "?" not in line


def test_costs_that_a_backend_does_not_report_are_question_marks():
  step = summary.step_costs(_Step(None), costs()[0])
  assert set(step.values()) == {None}
  assert summary.describe_step(step).count("?") == 3


@pytest.mark.parametrize(
  ("number", "text"),
  [(0, "0"), (999, "999"), (999.6, "1 k"), (12345, "12.3 k"), (5e15, "5e+03 T")],
)
def test_numbers_have_three_digits_and_a_prefix(number, text):
  assert summary.short(number).strip() == text
