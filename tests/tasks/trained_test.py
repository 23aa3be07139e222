import dataclasses
import gc
import json
import shutil

import numpy as np
import pytest

from configs import smoke
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.models import set_model
from deepsets_jax.ragged import Ragged
from deepsets_jax.tasks import fit, trained
from deepsets_jax.training import evaluation


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """The folder and the results of a short run."""
  folder = tmp_path_factory.mktemp("runs") / "short"
  config = smoke.get_config()
  config.total_steps = 6
  config.data.digits.update(train_examples=64, max_size=4)
  config.data.update(shards=8)
  config.model.update(features=8)
  config.optim.warmup_steps = 2
  config.train.update(eval_every=2)
  return folder, fit.train_and_evaluate(config, folder)


def test_a_run_is_loaded_at_its_best(finished):
  folder, results = finished
  loaded = trained.load_trained(folder)
  table = loaded.run.tables["test"]
  logits = loaded.logits(table)
  values = evaluation.evaluate(table, logits, loaded.run.loss, loaded.threshold)
  assert values == pytest.approx(results["test"])


def test_an_example_larger_than_the_budget_gets_more_slots(finished):
  loaded = trained.load_trained(finished[0])
  table = loaded.run.tables["test"].select(np.arange(3))
  images = np.zeros((500, 64), np.float32)
  many = Ragged(images, np.array([0, 500, 500, 500]))
  large = dataclasses.replace(table, modalities=table.modalities | {"image": many})
  assert 500 > loaded.run.budget.slots["image"]
  assert np.isfinite(loaded.logits(large)).all()


@pytest.mark.slow
def test_random_parameters_depend_on_the_seed(finished):
  loaded = trained.load_trained(finished[0])
  table = loaded.run.tables["test"]
  first, again, other = (loaded.untrained(seed).logits(table) for seed in (1, 1, 2))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 1e-3


def test_a_folder_without_run_or_checkpoint_is_refused(finished, tmp_path):
  with pytest.raises(ValueError, match="nowhere is no folder of a run"):
    trained.load_trained(tmp_path / "nowhere")
  shutil.copytree(finished[0], tmp_path / "run")
  shutil.rmtree(tmp_path / "run" / "checkpoints")
  with pytest.raises(ValueError, match="no checkpoint.*experiments.main --config=FILE"):
    trained.load_trained(tmp_path / "run")


def test_a_config_without_a_setting_has_its_default(finished, tmp_path):
  shutil.copytree(finished[0], tmp_path / "run")
  path = tmp_path / "run" / "config.json"
  config = json.loads(path.read_text())
  del config["model"]["encoders"], config["loss"], config["task"]
  path.write_text(json.dumps(config | {"recall": {"uniform": 3}}))
  trained.load_trained(tmp_path / "run")
  path.write_text(path.read_text().replace('"set_pool"', '"pool_of_sets"'))
  with pytest.raises(ConfigError, match="unknown config.model.fusion 'pool_of_sets'"):
    trained.load_trained(tmp_path / "run")


@pytest.mark.parametrize("error", [AttributeError("featuers"), KeyError("featuers")])
def test_a_defect_of_the_model_passes_through(finished, monkeypatch, error):
  def build(*_):
    raise error

  monkeypatch.setattr(set_model, "build_set_model", build)
  with pytest.raises(type(error), match="featuers") as raised:
    trained.load_trained(finished[0])
  assert raised.value is error


# Orbax leaves coroutines behind when loading fails.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_or_config_is_named_with_the_remedy(finished, tmp_path):
  shutil.copytree(finished[0], tmp_path / "run")
  arrays = (tmp_path / "run" / "checkpoints").glob("*/state/**/*")
  for file in [path for path in arrays if path.is_file()]:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
  with pytest.raises(ValueError, match="checkpoint 6 in .* is damaged.*Delete the"):
    trained.load_trained(tmp_path / "run")
  gc.collect()  # Not in another test, where their warnings would be errors.
  (tmp_path / "run" / "config.json").write_text('{"seed": ')
  with pytest.raises(ValueError, match="config.json is damaged.*train the run again"):
    trained.load_trained(tmp_path / "run")
