import functools

import jax
import jax.numpy as jnp
import pytest

from configs import digits_bags
from deepsets_jax.data.datasets import digits
from deepsets_jax.models import set_model
from deepsets_jax.ragged import Ragged
from deepsets_jax.training import losses, metrics

POOLS = "sum mean max min logsumexp softmax std var mil mil_gated".split()
POOLS += ["set_transformer", "set_transformer_isab"]


@functools.cache
def shapes_of(pool):
  """Shapes of a model's parameters, by part."""
  table = digits.load_digits("max", 0, train_examples=8, test_sizes=())["train"]
  config = digits_bags.get_config(f"max,{pool}").model
  bias = losses.prior_logits(table.schema.target, table.targets)
  model = set_model.build_set_model(config, table.schema, bias)
  images = Ragged(jnp.zeros((16, 64), jnp.float32), jnp.array([0, 3, 3, 16], jnp.int32))
  variables = jax.eval_shape(model.init, jax.random.key(0), {"image": images})
  return jax.tree.map(lambda x: x.shape, variables["params"])


@pytest.mark.parametrize("pool", POOLS)
def test_every_pool_has_the_same_encoder_and_head(pool):
  shapes, expected = shapes_of(pool), shapes_of("max")
  for part in ("encoders_image", "head"):
    assert shapes[part] == expected[part]


@pytest.mark.parametrize("task", ["max", "contains_nine"])
def test_a_task_has_a_metric_of_its_target_and_the_seed(task):
  config = digits_bags.get_config(f"{task},mean,7")
  assert config.seed == 7
  tables = digits.load_digits(
    config.data.digits.task, 0, train_examples=8, test_sizes=(20,)
  )
  assert config.train.metric in metrics.names(tables["train"].schema.target)


@pytest.mark.parametrize("argument", ["sum,max", "max,median", "max"])
def test_an_unknown_task_or_pool_is_named(argument):
  with pytest.raises(ValueError, match="unknown (task 'sum'|pool 'median'|pool '')"):
    digits_bags.get_config(argument)
