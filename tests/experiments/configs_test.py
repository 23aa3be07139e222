import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import ml_collections
import pytest

from configs import (
  debian_programs,
  debian_structures,
  digits_planted,
  multiple_features,
)
from deepsets_jax.data.datasets import clicks, digits
from deepsets_jax.data.datasets import debian_programs as debian_programs_data
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.fusion import FUSIONS
from deepsets_jax.models import config, set_model
from deepsets_jax.models.config import set_fusion
from deepsets_jax.tasks import defaults
from deepsets_jax.training import config as training_config
from deepsets_jax.training import run_folder

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("[a-z]*.py"))
SCHEMA = Schema({"a": Modality("vectors", 2)}, Target("regression", 1))


def flat(config, prefix=""):
  for key in config:
    value = config.get_ref(key).get() if isinstance(config, dict) else config[key]
    if isinstance(value, ml_collections.ConfigDict):
      yield from flat(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_built_of_settings_that_exist(name):
  config = importlib.import_module(f"configs.{name}").get_config()
  defaults.complete(config)  # Raises for a setting that does not exist.
  names = [*config.data.budgets, *config.model.fading] or ["a"]
  schema = Schema(
    {name: Modality("tokens", 2, ordered=True) for name in names}, SCHEMA.target
  )
  set_model.build_set_model(config.model, schema, [0.0])


def test_a_config_has_the_settings_of_its_own_task_alone():
  groups = {task: set(default()) for task, default in defaults.DEFAULTS.items()}
  common = {"seed", "task", "total_steps", "data", "model", "optim", "train"}
  assert groups["supervised"] == common | {"loss"}
  assert groups["retrieval"] == common | {"item_model", "retrieval"}
  assert groups["ranking"] == common | {"item_model", "retrieval", "ranking"}
  assert "histories" not in defaults.supervised().data
  assert "digits" not in defaults.supervised("table").data


def test_the_settings_of_a_fusion_are_those_of_the_chosen_one():
  config = defaults.supervised()
  set_fusion(config.model, "mil", gated=True)
  assert config.model.mil.to_dict() == {"hidden": 128, "gated": True}
  assert "set_pool" not in config.model
  with pytest.raises(ConfigError, match=r"mil.depth: .*'mil' has no.*'gated'"):
    set_fusion(config.model, "mil", depth=2)
  # Without its group, as after --config.model.fusion=mil, it has its defaults.
  config = defaults.supervised("table")
  config.model.fusion = "mil"
  assert defaults.complete(config).model.mil.hidden == 128
  assert set_model.build_set_model(config.model, SCHEMA, [0.0]).fusion.hidden == 128


def test_a_setting_that_does_not_exist_is_named_with_the_nearest():
  config = defaults.supervised("table")
  config.model.head.input_dropuot = 0.5
  with pytest.raises(ConfigError, match=r"did you mean config.model.head.input_dropo"):
    defaults.complete(config)


@pytest.mark.parametrize("task", defaults.RENAMED_TASKS)
def test_the_older_name_of_a_task_is_answered_with_the_new_one(task):
  config = defaults.supervised("table")
  config.task = task
  with pytest.raises(ConfigError, match=f"now called '{defaults.RENAMED_TASKS[task]}'"):
    defaults.complete(config)


class TestUpgrade:
  def test_older_names_become_the_new_ones(self):
    stored = defaults.retrieval().to_dict()
    group = stored.pop("retrieval")
    stored["recall"] = {
      "uniform": 7, "shared": False, "across": True, "dimensions": 5,
    }  # fmt: skip
    del stored["data"]["histories"]["max_history"]
    stored["data"]["histories"]["window"] = 3
    stored["task"] = "recall"
    config, dropped = defaults.upgrade(ml_collections.ConfigDict(stored))
    got = config.retrieval
    assert not dropped and config.task == "retrieval" and set(got) == set(group)
    assert (got.num_uniform_negatives, got.dimensions) == (7, 5)
    assert (got.tie_item_tower, got.cross_device_negatives) == (False, True)
    assert config.data.histories.max_history == 3

  def test_settings_of_other_tasks_and_older_ones_are_dropped_and_named(self):
    stored = defaults.supervised("table").to_dict()
    stored |= {"recall": {"uniform": 7}, "item_model": {"features": 3}}
    stored["optim"]["beta1"] = 0.9
    stored["model"]["concat"] = {"pools": ["sum"]}
    del stored["task"]
    config, dropped = defaults.upgrade(ml_collections.ConfigDict(stored))
    assert config.to_dict() == defaults.supervised("table").to_dict()
    assert set(dropped) == {"retrieval", "item_model", "optim.beta1"}

  def test_settings_that_are_new_have_their_defaults(self):
    stored = defaults.supervised("table").to_dict()
    del stored["loss"], stored["model"]["encoders"], stored["train"]["patience"]
    config, dropped = defaults.upgrade(ml_collections.ConfigDict(stored))
    assert config.to_dict() == defaults.supervised("table").to_dict() and not dropped


@pytest.mark.parametrize("name", debian_structures.STRUCTURES)
@pytest.mark.parametrize("text", ["", "sentences"])
def test_every_structure_is_built(name, text):
  config = debian_structures.get_config(f"{name},1,{text}")
  assert config.seed == 1
  names = [*debian_structures.debian_programs.MODALITIES, "sentences"]
  schema = Schema(
    {name: Modality("tokens", 2, ordered=True) for name in names}, SCHEMA.target
  )
  model = set_model.build_set_model(config.model, schema, [0.0])
  assert type(model.fusion) is FUSIONS[debian_structures.STRUCTURES[name].fusion]


def test_every_fusion_has_a_structure():
  used = {structure.fusion for structure in debian_structures.STRUCTURES.values()}
  assert used == set(FUSIONS)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_takes_overrides_of_the_command_line(name):
  # In a process of its own: absl flags are global.
  code = (
    "import sys; from absl import app, flags; from ml_collections import config_flags;"
    "c = config_flags.DEFINE_config_file('config', lock_config=True);"
    "app.run(lambda argv: print(c.value.seed, c.value.optim.learning_rate,"
    " c.value.model.head.hidden))"
  )
  command = [sys.executable, "-c", code, f"--config=configs/{name}.py"]
  overrides = [
    "--config.seed=7",
    "--config.optim.learning_rate=0.5",
    "--config.model.head.hidden=(3,4)",
  ]
  done = subprocess.run(
    command + overrides, cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.stdout.split() == ["7", "0.5", "(3,", "4)"], done.stderr


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("fusion", "early"),
    ("dtype", "float8"),
    ("set_pool.pools", ("median",)),
  ],
)
def test_a_wrong_value_of_the_model_is_named(key, value):
  config = defaults.supervised().model
  config.update_from_flattened_dict({key: value})
  wrong = value[0] if isinstance(value, tuple) else value
  with pytest.raises(ValueError, match=f"{wrong}.*one of"):
    set_model.build_set_model(config, SCHEMA, [0.0])


@pytest.mark.parametrize(
  "module", [clicks, config, debian_programs_data, defaults, digits, training_config]
)
def test_every_setting_has_a_comment(module):
  source = inspect.getsource(module)
  if hasattr(module, "SETTINGS"):  # Of a data set, whose module has much else.
    source = source[source.index("SETTINGS = ") :].split("\n)\n")[0]
  lines, commented = source.splitlines(), 0
  for number, line in enumerate(lines):
    stripped = line.strip()
    setting = re.match(r"(?:config\.)?(\w+)=.*[,(]$", stripped.replace(" = ", "="))
    if not setting or not line.startswith("  ") or stripped.endswith("("):
      continue
    if setting[1] in ("set_pool", "head"):
      continue  # Groups.
    assert lines[number - 1].strip().startswith("#"), line
    commented += 1
  assert commented > 2


def test_another_config_in_a_folder_is_refused_with_its_keys(tmp_path):
  config = defaults.supervised()
  config.data.shards, config.data.budgets = 8, {"a": 16}
  run_folder.create(config, tmp_path)
  again = defaults.supervised()
  adopted = run_folder.adopt(again, tmp_path, lambda stored: stored)
  assert (adopted.data.shards, adopted.data.budgets.a) == (8, 16)
  again.seed, again.optim.learning_rate = 3, 0.5
  with pytest.raises(ValueError) as error:
    run_folder.adopt(again, tmp_path, lambda stored: stored)
  message = str(error.value)
  assert "seed: 0 there, 3 here" in message and "optim.learning_rate" in message
  assert "--workdir" in message and "dropout" not in message


@pytest.mark.parametrize("name", digits_planted.MODELS)
def test_every_model_of_planted_sets_is_built(name):
  config = digits_planted.get_config(f"{name},2")
  assert config.seed == 2 and config.data.digits.misread_rate == 0
  modalities = {name: Modality("vectors", 2) for name in config.data.budgets}
  model = set_model.build_set_model(
    config.model, Schema(modalities, SCHEMA.target), [0.0]
  )
  fusion, settings = digits_planted.MODELS[name]
  assert type(model.fusion) is FUSIONS[fusion]
  for key, value in settings.items():
    assert getattr(model.fusion, key) == value


@pytest.mark.parametrize("job", [debian_programs, multiple_features])
def test_modalities_are_left_out_in_training_where_it_is_asked_for(job):
  assert job.get_config("concat,1").data.modality_dropout == 0
  assert job.get_config("concat,1,dropout").data.modality_dropout == 0.3
  with pytest.raises(ValueError, match="'drop'"):
    job.get_config("concat,1,drop")
