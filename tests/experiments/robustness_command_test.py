"""The command `experiments.robustness`: what it refuses, writes and draws."""

import itertools
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import image
from matplotlib.container import BarContainer

from configs import smoke
from deepsets_jax import figures
from deepsets_jax.analysis import robustness
from deepsets_jax.tasks import fit, trained
from deepsets_jax.training import run_folder
from experiments import robustness as command
from experiments.results import robustness_tables as tables

ROOT = pathlib.Path(__file__).parents[2]
OPTIONS = {"split": "test", "draws": 1, "seed": 0}


def config(seed=0):
  found = smoke.get_config()
  found.seed = seed
  found.total_steps = 4
  found.data.digits.train_examples = 400
  found.data.batch_size = 256
  found.model.features = 8
  found.model.dense.hidden = ()
  found.model.head.hidden = ()
  found.optim.warmup_steps = 2
  return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """Folders of two runs, seeds 0 and 1."""
  folder = tmp_path_factory.mktemp("runs")
  for seed in (0, 1):
    fit.train_and_evaluate(config(seed), folder / str(seed))
  return folder


@pytest.fixture(scope="module")
def compared(runs):
  """The folder of a comparison of a model of two seeds and one of one."""
  texts = [f"two={runs}/0", f"two={runs}/1", f"$one={runs}/0"]
  output = runs / "out"
  command.compare([command.read(text) for text in texts], output, **OPTIONS)
  return output


@pytest.mark.slow
def test_its_numbers_are_those_of_the_module(runs, compared):
  found = json.loads((compared / "robustness.json").read_text())
  assert [found[key] for key in ("metric", "split", "draws")] == ["accuracy", "test", 1]
  two, one = found["models"]
  assert two["name"] == "two" and two["workdirs"]["1"] == str(runs / "1")
  whole = []
  for seed in "01":
    model = trained.load_trained(runs / seed)
    table = model.run.tables["test"]
    whole.append(robustness.measure(model, table))
    curve = robustness.curve(model, table, robustness.noise, (0, 0.3), draws=1)
    values = two["curves"]["noise"]["values"][seed]
    assert (values[0], values[3]) == pytest.approx(tuple(curve.values))
    subsets = robustness.every_subset(model, table)
    assert {tuple(x["modalities"]): x["values"][seed] for x in two["subsets"]} == (
      pytest.approx(subsets)
    )
  assert two["whole"]["mean"] == pytest.approx(np.mean(whole))
  assert two["whole"]["sd"] == pytest.approx(np.std(whole, ddof=1))
  assert one["whole"] == {"mean": whole[0], "sd": None, "values": {"0": whole[0]}}
  missing = two["curves"]["missing"]
  for seed in "01":
    values = missing["values"][seed]
    assert missing["area"]["values"][seed] == pytest.approx(np.trapezoid(values) / 10)
    lost = missing["loss_at"]["0.5"]["values"][seed]
    assert lost == pytest.approx(values[0] - values[5])


def test_it_leaves_a_page_and_pictures(compared):
  page = (compared / "robustness.md").read_text()
  two, one = json.loads((compared / "robustness.json").read_text())["models"]
  line = next(x for x in page.splitlines() if x.startswith("| two |"))
  for numbers in (
    two["whole"],
    two["curves"]["missing"]["area"],
    two["curves"]["missing"]["loss_at"]["0.9"],
    two["curves"]["repeated"]["loss_at"]["16"],
  ):
    assert f"| {numbers['mean']:.4f} ± {numbers['sd']:.4f} |" in line
  alone = next(x for x in one["subsets"] if x["modalities"] == ["ocr"])
  row = next(x for x in page.splitlines() if x.startswith("| ocr |"))
  assert f"| {alone['mean']:.4f} |" in row
  for part in ("accuracy on test", "over seeds", "1 draws", "| `", "subsets.png"):
    assert part in page
  for name in ("robustness.png", "subsets.png"):
    assert image.imread(compared / name).std() > 0


@pytest.mark.slow
def test_the_command_line_of_a_single_run(runs):
  line = [sys.executable, "-m", "experiments.robustness", f"--workdir={runs}/0"]
  done = subprocess.run(
    [*line, "--split=validation", "--draws=1"],
    cwd=ROOT, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr[-2000:]
  page = (runs / "0" / "robustness" / "robustness.md").read_text()
  assert "accuracy on validation; single runs" in page
  assert done.stdout.split("\n\nrobustness.md")[0] in page
  assert "| 0 | " in done.stdout and "1/1: 0" in done.stderr


def write(folder, changes=(), seed=0):
  """A folder with a config, changed, and nothing else."""
  found = config(seed)
  with found.unlocked():
    found.update_from_flattened_dict(dict(changes))
  run_folder.create(found, folder)
  return str(folder)


class TestRead:
  def test_a_folder_may_have_a_name_before_it(self, tmp_path):
    folder = write(tmp_path / "set_pool_0")
    assert command.read(folder).name == "set_pool_0"
    assert command.read(f"a b={folder}").name == "a b"
    assert command.read(f"a={folder}").workdir == tmp_path / "set_pool_0"

  def test_a_folder_without_a_run_is_refused(self, tmp_path):
    with pytest.raises(ValueError, match="no folder of a run"):
      command.read(f"a={tmp_path}")


class TestCheck:
  @pytest.mark.parametrize(
    ("changes", "said"),
    [
      ({"data.name": "debian_programs"}, "data.name='debian_programs'"),
      ({"data.digits.misread_rate": 0.3}, "data.digits.misread_rate=0.3"),
      ({"train.metric": "loss"}, "train.metric='loss'"),
    ],
  )
  def test_other_data_or_another_metric_is_refused(self, tmp_path, changes, said):
    folders = [write(tmp_path / "a"), write(tmp_path / "b", changes)]
    with pytest.raises(ValueError, match=f"b has {said}.*a has") as error:
      command.check([command.read(folder) for folder in folders])
    assert "one data set" in str(error.value)

  def test_what_is_of_training_may_differ_between_models(self, tmp_path):
    changes = {"model.features": 16, "data.modality_dropout": 0.5, "data.shards": 2}
    folders = [write(tmp_path / "a"), write(tmp_path / "b", changes)]
    command.check([command.read(folder) for folder in folders])

  def test_runs_of_one_name_differ_in_their_seeds_only(self, tmp_path):
    a = f"m={write(tmp_path / 'a', {'data.budgets.ocr': 64})}"
    b = f"m={write(tmp_path / 'b', {'data.budgets.ocr': 72}, seed=1)}"
    c = f"m={write(tmp_path / 'c', {'model.features': 16}, seed=2)}"
    command.check([command.read(text) for text in (a, b)])
    with pytest.raises(ValueError, match=r"c has model.features=16, but .*a has 8"):
      command.check([command.read(text) for text in (a, b, c)])

  def test_a_seed_counts_once(self, tmp_path):
    texts = [f"m={write(tmp_path / x)}" for x in "ab"]
    with pytest.raises(ValueError, match="both 'm' with seed 0"):
      command.check([command.read(text) for text in texts])


class TestMeasure:
  def test_a_run_without_a_checkpoint_is_refused(self, tmp_path):
    run = command.read(write(tmp_path / "a"))
    with pytest.raises(ValueError, match="a config but no checkpoint"):
      command.measure(run, **OPTIONS)

  def test_a_split_that_is_not_there_is_refused(self, runs):
    with pytest.raises(ValueError, match=r"no split 'exam'.*'test'"):
      command.measure(command.read(f"{runs}/0"), **(OPTIONS | {"split": "exam"}))


def measured(seed=0, metric="accuracy", shift=0.0, names=("a", "b", "c")):
  """Made up: each modality adds what its place says."""
  sign = 1 if metric == "accuracy" else -1
  worth = {name: sign * 0.1 * 2**i for i, name in enumerate(names)}
  subsets = {
    subset: 2 + shift + sum(worth[name] for name in subset)
    for size in range(len(names) + 1)
    for subset in itertools.combinations(names, size)
  }
  curves = {
    kind: robustness.RobustnessCurve(
      metric, np.array(levels), 2 + shift - sign * np.linspace(0, 1, len(levels))
    )
    for kind, (_, levels, _) in robustness.CORRUPTIONS.items()
  }
  return tables.Measured(f"runs/{seed}", seed, 2 + shift, curves, subsets)


class TestTables:
  def test_the_best_subsets_are_the_best_first(self):
    table = tables.rows({"m": [measured()]})
    lines = tables.markdown(table, "accuracy").split("\n\n")[1].splitlines()[2:]
    assert [line.split(" | ")[1] for line in lines] == [
      "all", "all but a", "all but b", "c", "all but c",
    ]  # fmt: skip
    assert lines[0].endswith("| 2.7000 |")

  def test_of_an_error_the_best_are_the_lowest(self):
    table = tables.rows({"m": [measured(metric="mae")]})
    text = tables.markdown(table, "mae")
    assert text.split("\n\n")[1].splitlines()[2].endswith("| all | 1.3000 |")
    assert "| 0.5000 | 0.9000 |" in text.splitlines()[2]  # Losses are positive.

  def test_each_modality_stands_alone_and_left_out(self):
    models = {"m": [measured(0), measured(1, shift=0.2)], "n": [measured(0)]}
    lines = tables.markdown(tables.rows(models), "accuracy").split("\n\n")[2]
    assert lines.splitlines()[0] == (
      "| modality | m, alone | m, all but it | n, alone | n, all but it |"
    )
    assert lines.splitlines()[3] == (
      "| b | 2.3000 ± 0.1414 | 2.6000 ± 0.1414 | 2.2000 | 2.5000 |"
    )
    assert lines.splitlines()[-1].startswith("| none | 2.1000 ± 0.1414 | 2.8000")

  def test_too_many_modalities_leave_the_subsets_out(self):
    one = tables.Measured("runs/0", 0, 1.0, measured().curves, {})
    text = tables.markdown(tables.rows({"m": [one]}), "accuracy")
    assert len(text.split("\n\n")) == 1 and "subsets" not in text


class TestCurvesPicture:
  def draw(self, models):
    table = tables.rows(models)
    return tables.draw_curves(table, "accuracy")

  def test_has_a_panel_per_corruption_and_a_line_per_model(self):
    figure = self.draw({"m": [measured(0), measured(1, shift=0.2)], "n": [measured(0)]})
    assert [axes.get_title() for axes in figure.axes] == [
      "modalities missing", "elements replaced by others", "elements repeated",
    ]  # fmt: skip
    for axes in figure.axes:
      m, n = axes.lines
      assert m.get_ydata()[[0, -1]] == pytest.approx([2.1, 1.1])
      assert n.get_ydata()[[0, -1]] == pytest.approx([2, 1])
      (band,) = axes.collections  # A single run has no deviation.
      low, high = (2.1 - 0.1 * 2**0.5, 2.1 + 0.1 * 2**0.5)
      at_first = band.get_paths()[0].vertices
      at_first = at_first[at_first[:, 0] == m.get_xdata()[0], 1]
      assert (at_first.min(), at_first.max()) == pytest.approx((low, high))
    assert figure.axes[0].get_ylabel() == "accuracy"

  def test_the_legend_is_not_over_the_data(self):
    figure = self.draw({f"model {i}": [measured(0)] for i in range(10)})
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert len(legend.get_texts()) == 10
    assert all(not box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    width, height = figure.get_size_inches() * figure.dpi
    assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height

  @pytest.mark.parametrize(("most", "shared"), [(2.0, True), (400.0, False)])
  def test_panels_share_an_axis_unless_one_dwarfs_the_others(self, most, shared):
    x = {"a": [0, 1], "b": [0, 1], "c": [1, 16]}
    values = {"a": [[1, 0]], "b": [[1, 0.9]], "c": [[1, most]]}
    curves = {"m": {name: np.array(value) for name, value in values.items()}}
    a, b, c = figures.robustness_curves("mae", x, curves).axes
    assert (a.get_ylim() == b.get_ylim() == c.get_ylim()) == shared
    assert c.get_ylim()[1] >= most

  def test_no_two_models_look_alike(self):
    figure = self.draw({f"model {i}": [measured(0)] for i in range(20)})
    looks = {(x.get_color(), x.get_linestyle()) for x in figure.axes[0].lines}
    assert len(looks) == 20

  def test_a_name_is_no_formula(self, tmp_path):
    figure = self.draw({r"$\frac$": [measured(0)]})
    figures.save(figure, tmp_path / "a.png")
    assert image.imread(tmp_path / "a.png").std() > 0


class TestSubsetsPicture:
  def draw(self, metric, models):
    return tables.draw_subsets(tables.rows(models), metric)

  def bars(self, axes):
    groups = [x for x in axes.containers if isinstance(x, BarContainer)]
    return [[bar.get_width() for bar in group] for group in groups]

  def test_has_each_modality_alone_and_what_its_absence_costs(self):
    figure = self.draw("accuracy", {"m": [measured(0)]})
    left, right = figure.axes
    rows = [label.get_text() for label in left.get_yticklabels()]
    assert rows == ["all", "c", "b", "a", "none"]
    assert self.bars(left) == [pytest.approx([2.7, 2.4, 2.2, 2.1, 2.0])]
    assert self.bars(right)[0][1:4] == pytest.approx([0.4, 0.2, 0.1])
    assert np.isnan(self.bars(right)[0])[[0, 4]].all()  # Nothing is drawn.

  def test_of_an_error_the_cost_is_positive_too(self):
    figure = self.draw("mae", {"m": [measured(0, metric="mae")]})
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == ["all", "c", "b", "a", "none"]
    assert self.bars(figure.axes[1])[0][1:4] == pytest.approx([0.4, 0.2, 0.1])

  def test_several_models_are_groups_of_bars_beside_each_other(self, tmp_path):
    models = {"m": [measured(0), measured(1, shift=0.2)], "n": [measured(0)]}
    figure = self.draw("accuracy", models)
    first, second = (
      x for x in figure.axes[0].containers if isinstance(x, BarContainer)
    )
    assert first[0].get_y() + first[0].get_height() <= second[0].get_y()
    assert first[0].get_width() == pytest.approx(2.8)
    # The two runs lose the same, however they differ.
    assert first[0].get_facecolor() != second[0].get_facecolor()
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["m", "n"]
    figures.save(figure, tmp_path / "a.png")
    assert image.imread(tmp_path / "a.png").std() > 0
