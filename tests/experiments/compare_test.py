"""Comparisons: which runs are trained, and their statistics against plain loops."""

import itertools
import json
import pathlib
import re
import statistics
import subprocess
import sys
import types

import numpy as np
import pytest
from absl import flags
from matplotlib import image
from matplotlib.text import Text
from scipy import stats

from deepsets_jax import figures
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.tasks import fit
from deepsets_jax.training import loop
from experiments import compare
from experiments.results import comparison

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """
from configs import smoke

def get_config(fusion="set_pool,8"):
  fusion, features = fusion.split(",")
  config = smoke.get_config(fusion)
  config.total_steps = 12
  config.data.digits.train_examples = 100
  config.model.features = int(features)
  config.optim.warmup_steps = 2
  return config
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  path = tmp_path_factory.mktemp("configs") / "tiny.py"
  path.write_text(CONFIG)
  return str(path)


@pytest.fixture(scope="module")
def compared(config):
  """The folder of a comparison on the command line."""
  workdir = pathlib.Path(config).parent / "out"
  command = [
    *(sys.executable, "-m", "experiments.compare"),
    *(f"--config={config}", f"--config=wide={config}:concat,16"),
    *("--seeds=0,1", "--metrics=accuracy,loss", f"--workdir={workdir}"),
  ]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr[-2000:]
  assert done.stderr.count("step 12/12") == 4
  assert "compare.png" in done.stdout
  return workdir


def test_the_numbers_are_those_of_the_runs(compared):
  found = json.loads((compared / "compare.json").read_text())
  assert found["baseline"] == "tiny" and found["seeds"] == [0, 1]
  results = {
    name: [
      json.loads((compared / name / f"seed_{seed}" / "results.json").read_text())
      for seed in (0, 1)
    ]
    for name in ("tiny", "wide")
  }
  tiny, wide = found["models"]
  assert (tiny["name"], wide["name"]) == ("tiny", "wide")
  for row in (tiny, wide):
    runs = results[row["name"]]
    assert row["parameters"] == runs[0]["parameters"] == runs[1]["parameters"]
    flops = [run["summary"]["flops_per_example"] for run in runs]
    assert row["flops_per_example"] == pytest.approx(statistics.mean(flops))
    rates = [run["examples_per_second"] for run in runs]
    assert row["examples_per_second"] == pytest.approx(statistics.mean(rates))
    for split, metric in itertools.product(
      ("validation", "test"), ("accuracy", "loss")
    ):
      values = [run[split][metric] for run in runs]
      assert row[split][metric]["values"] == dict(zip("01", values, strict=True))
      assert row[split][metric]["mean"] == pytest.approx(np.mean(values))
      assert row[split][metric]["sd"] == pytest.approx(np.std(values, ddof=1))
  a, b = ([run["test"]["loss"] for run in results[name]] for name in ("wide", "tiny"))
  difference = wide["against_baseline"]["loss"]
  assert difference["n"] == 2 and not tiny["against_baseline"]
  assert difference["mean"] == pytest.approx(np.mean(a) - np.mean(b))
  # Two-sided, of Student's t with one degree of freedom.
  t = difference["mean"] / (difference["sd"] / np.sqrt(2))
  assert difference["p"] == pytest.approx(1 - 2 / np.pi * np.arctan(abs(t)))


def test_the_folder_holds_a_page_and_a_picture(compared):
  page = (compared / "compare.md").read_text()
  line = next(x for x in page.splitlines() if x.startswith("| wide |"))
  (wide,) = json.loads((compared / "compare.json").read_text())["models"][1:]
  loss = wide["test"]["loss"]
  assert f"{loss['mean']:.4f} ± {loss['sd']:.4f}" in line
  assert f"{wide['parameters']:,}" in line and ", p 0." in line
  for part in (
    "seeds 0, 1",
    "tiny with the same seed",
    "Commit",
    "tiny.py:concat,16`",
    "jaxlib",
  ):
    assert part in page
  assert image.imread(compared / "compare.png").std() > 0


def test_a_finished_run_is_not_repeated(compared, config, monkeypatch, capsys):
  def never(*arguments):
    raise AssertionError("ran again")

  monkeypatch.setattr(fit, "train_and_evaluate", never)
  before = (compared / "compare.json").read_text()
  models = [compare.load_model(config), compare.load_model(f"wide={config}:concat,16")]
  names = ["accuracy", "loss"]
  assert compare.compare(models, [0, 1], names, "tiny", compared)
  assert (compared / "compare.json").read_text() == before
  assert "compare.json" in capsys.readouterr().out


def results(quality, parameters=100, flops=2e6):
  return {
    "validation": {"accuracy": quality},
    "test": {"accuracy": quality},
    "parameters": parameters,
    "summary": {"flops_per_example": flops},
    "examples_per_second": 1000.0,
    "device": {"count": 1, "kind": "cpu"},
    "versions": {"jax": "1", "jaxlib": "1", "python": "3"},
  }


def test_a_failed_run_is_listed_and_the_others_count(
  config, monkeypatch, tmp_path, capsys
):
  def once(one, folder):
    wide = one.model.features == 16
    if one.seed == 1 and wide:
      raise loop.NonFiniteError("loss is nan at step 7")
    return results(0.5 + 0.1 * wide + 0.01 * one.seed**2)

  monkeypatch.setattr(fit, "train_once", once)
  models = [
    compare.load_model(config),
    compare.load_model(f"wide={config}:set_pool,16"),
  ]
  assert not compare.compare(models, [0, 1, 2], ["accuracy"], "tiny", tmp_path)
  page = (tmp_path / "compare.md").read_text()
  assert "| wide (1 failed) | 100 | 2 M | 1,000 | 0.6200 ± 0.0283 |" in page
  assert "- wide, seed 1, failed: loss is nan at step 7" in page
  wide = json.loads((tmp_path / "compare.json").read_text())["models"][1]
  assert wide["failed"] == {"1": "loss is nan at step 7"}
  # Over the two seeds that both have; their differences are equal.
  against = wide["against_baseline"]["accuracy"]
  assert against["n"] == 2 and against["mean"] == pytest.approx(0.1)
  assert against["sd"] == pytest.approx(0, abs=1e-9)
  monkeypatch.setattr(fit, "train_once", _fail)
  assert not compare.compare(models, [0], ["accuracy"], "tiny", tmp_path)
  assert "| tiny (1 failed) |  |  |  |  |  |" in (tmp_path / "compare.md").read_text()
  assert "wide, seed 0: no good" in capsys.readouterr().err


def _fail(config, folder):
  raise loop.NonFiniteError("no good")


def test_an_undefined_metric_is_left_out():
  model = comparison.Model("a", "a.py", None)
  finished = {0: results(0.5), 1: results(None), 2: results(float("nan"))}
  runs = {"a": comparison.Outcomes(finished, {})}
  (row,) = comparison.summary_rows([model], runs, ["accuracy"], "a")
  assert row["test"]["accuracy"] == {"mean": 0.5, "sd": None, "values": {0: 0.5}}
  assert "| 0.5000 |" in comparison.summary_table([row], ["accuracy"])


class TestPaired:
  def test_agrees_with_scipy_on_the_seeds_in_common(self):
    a, b = {0: 0.5, 1: 0.75, 2: 0.625, 7: 9.0}, {2: 0.5, 1: 0.5, 0: 0.375, 5: 3.0}
    found = comparison.paired_difference(a, b)
    assert found["n"] == 3 and found["mean"] == pytest.approx(0.5 / 3)
    want = stats.ttest_rel([0.5, 0.75, 0.625], [0.375, 0.5, 0.5]).pvalue
    assert found["p"] == pytest.approx(want)

  def test_too_few_seeds_have_no_p(self):
    one = comparison.paired_difference({0: 0.5}, {0: 0.25})
    assert one == {"n": 1, "mean": 0.25, "sd": None, "p": None}
    assert comparison.paired_difference({0: 0.5}, {})["mean"] is None

  def test_equal_differences_have_no_p(self):
    found = comparison.paired_difference({0: 0.5, 1: 0.75}, {0: 0.25, 1: 0.5})
    assert found == {"n": 2, "mean": 0.25, "sd": 0.0, "p": None}
    rounded = comparison.paired_difference(
      {0: 0.3, 1: 0.7, 2: 0.9}, {0: 0.1, 1: 0.5, 2: 0.7}
    )
    assert rounded["p"] is None


class TestLoad:
  def test_names_and_arguments(self, config):
    for text, name, fusion in (
      (config, "tiny", "set_pool"),
      (f"{config}:concat,8", "tiny_concat_8", "concat"),
      (f"a b={config}:concat,8", "a b", "concat"),
    ):
      model = compare.load_model(text)
      assert (model.name, model.config.model.fusion) == (name, fusion)
      assert model.seeded(7).seed == 7 and model.config.seed == 0

  def test_a_file_without_a_config_is_refused(self, tmp_path):
    with pytest.raises(ConfigError, match="there is no file 'no.py'"):
      compare.load_model("a=no.py:b")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ConfigError, match=re.escape("has no get_config()")):
      compare.load_model(str(tmp_path / "empty.py"))

  @pytest.mark.parametrize(
    ("others", "names", "baseline", "message"),
    [
      ([":set_pool,8"], ["accuracy"], "tiny", "have the same config"),
      ([":concat,8", ""], ["accuracy"], "tiny", "have the same name"),
      ([], ["f1_micro"], "tiny", "data of tiny has no 'f1_micro'; one of .*accuracy"),
      (
        [],
        ["accuracy"],
        "other",
        r"--baseline=other: no such model; one of \['tiny'\]",
      ),
    ],
  )
  def test_bad_comparisons_are_refused_before_any_run(
    self, config, tmp_path, others, names, baseline, message
  ):
    models = [
      compare.load_model(config),
      *(compare.load_model(config + x) for x in others),
    ]
    with pytest.raises(ConfigError, match=message):
      compare.compare(models, [0], names, baseline, tmp_path / "out")
    assert not (tmp_path / "out").exists()

  def test_the_command_prints_a_mistake_as_one_line(self, monkeypatch):
    monkeypatch.setattr(flags, "FLAGS", types.SimpleNamespace(config=["no.py"]))
    with pytest.raises(ConfigError, match="^--config=no.py: there is no file"):
      compare.main(["compare"])


class TestPicture:
  def draw(self, number, spread=1.0, metrics=("a",)):
    rng = np.random.default_rng(0)
    names = [f"model_of_some_name_{i}" for i in range(number)]
    costs = {
      "parameters": [7e6 + 1e4 * i for i in range(number)],
      "FLOPs": list(10 ** rng.uniform(5, 8, number)),
    }
    quality = {
      m: [(0.5 + 0.01 * spread * rng.normal(), 0.004) for _ in names] for m in metrics
    }
    return figures.quality_against_cost(names, costs, quality, baseline=names[0])

  def test_has_a_row_for_each_metric_and_a_column_for_each_cost(self):
    figure = self.draw(3, metrics=("a", "b"))
    assert len(figure.axes) == 4
    assert [axes.get_xlabel() for axes in figure.axes[:2]] == ["parameters", "FLOPs"]
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["a", "b"]
    assert all(axes.get_xscale() == "log" for axes in figure.axes)
    assert [len(axes.texts) for axes in figure.axes] == [3] * 4

  @pytest.mark.parametrize("number", [1, 2, 12])
  def test_labels_do_not_overlap(self, number, tmp_path):
    figure = self.draw(number)
    figures.save(figure, tmp_path / "a.png")
    figure.draw_without_rendering()
    for axes in figure.axes:
      # The text alone, without the line that leads to it.
      boxes = [Text.get_window_extent(text) for text in axes.texts]
      frame = axes.get_window_extent()
      assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
      assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))

  def test_unknown_values_are_left_out(self, tmp_path):
    quality = {"a": [(0.5, None), (None, None), (0.75, 0.1)]}
    costs = {"parameters": [1e3, 1e4, 2e3], "FLOPs": [None, 1.0, 1e6]}
    figure = figures.quality_against_cost(["x", "y", "z"], costs, quality)
    left, right = figure.axes
    assert sorted(text.get_text() for text in left.texts) == ["x", "z"]
    assert [text.get_text() for text in right.texts] == ["z"]
    figures.save(figure, tmp_path / "a.png")
