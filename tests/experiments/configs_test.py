import ast
import importlib
import inspect
import pathlib
import subprocess
import sys

import ml_collections
import pytest

from configs import (
  base,
  debian_programs,
  debian_structures,
  digits_planted,
  multiple_features,
)
from deepsets_jax.data.tables.schema import Modality, Schema, Target
from deepsets_jax.fusion import FUSIONS
from deepsets_jax.models import set_model
from deepsets_jax.training import run_folder

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("[a-z]*.py"))
# Groups whose keys are the data's or the model's.
OPEN_GROUPS = ("data.budgets.", "data.columns.", "model.positions.", "optim.factors.")
SCHEMA = Schema({"a": Modality("vectors", 2)}, Target("regression", 1))


def flat(config, prefix=""):
  for key in config:
    value = config.get_ref(key).get() if isinstance(config, dict) else config[key]
    if isinstance(value, ml_collections.ConfigDict):
      yield from flat(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_built_and_only_changes_settings_of_the_base(name):
  config = importlib.import_module(f"configs.{name}").get_config()
  legal = {key for key, _ in flat(base.get_config())}
  for key, _ in flat(config):
    assert key in legal or key.startswith(OPEN_GROUPS), key
  names = [*config.data.budgets, *config.model.fading] or ["a"]
  schema = Schema(
    {name: Modality("tokens", 2, ordered=True) for name in names}, SCHEMA.target
  )
  set_model.build_set_model(config.model, schema, [0.0])


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
  ("override", "named"),
  [
    ("--config.model.widht=3", "widht"),
    ("--config.total_steps=many", "total_steps"),
    ("--config.optim.learning_rat=1", "learning_rate"),  # Did you mean?
  ],
)
def test_a_wrong_key_or_type_is_named(override, named):
  command = [sys.executable, "-m", "experiments.main", "--config=configs/smoke.py"]
  done = subprocess.run(
    [*command, override], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode != 0 and named in done.stderr


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("fusion", "early"),
    ("dtype", "float8"),
    ("set_pool.pools", ("median",)),
  ],
)
def test_a_wrong_value_of_the_model_is_named(key, value):
  config = base.get_config().model
  config.update_from_flattened_dict({key: value})
  wrong = value[0] if isinstance(value, tuple) else value
  with pytest.raises(ValueError, match=f"{wrong}.*one of"):
    set_model.build_set_model(config, SCHEMA, [0.0])


def test_every_setting_has_a_comment():
  lines = inspect.getsource(base).splitlines()
  commented = 0
  for number, line in enumerate(lines):
    stripped = line.strip()
    setting = stripped.split("=")[0].replace("config.", "")
    if "=" not in stripped or not setting.isidentifier() or stripped.startswith("#"):
      continue
    if setting in ("config", "mlp", "beta1", "beta2") or stripped.endswith("("):
      continue  # Groups, whose settings follow, and names that say it all.
    if "_data()" in line or "_model()" in line:
      continue
    assert lines[number - 1].strip().startswith("#"), line
    commented += 1
  assert commented > 30
  ast.parse("\n".join(lines))


def test_another_config_in_a_folder_is_refused_with_its_keys(tmp_path):
  config = base.get_config()
  config.data.shards, config.data.budgets = 8, {"a": 16}
  run_folder.create(config, tmp_path)
  again = base.get_config()
  adopted = run_folder.adopt(again, tmp_path)
  assert (adopted.data.shards, adopted.data.budgets.a) == (8, 16)
  again.seed, again.optim.learning_rate = 3, 0.5
  with pytest.raises(ValueError) as error:
    run_folder.adopt(again, tmp_path)
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
