"""Pictures: what is drawn, of usual and of the least data."""

import itertools

import numpy as np
import pytest
from matplotlib import image

from deepsets_jax import figures

RECORDS = [
  {"step": 10, "split": "train", "loss": 0.5},
  {"step": 10, "split": "validation", "loss": 0.6, "f1_micro": 0.1},
  {"step": 20, "split": "train", "loss": 0.4},
  {"step": 20, "split": "validation", "loss": 0.5, "f1_micro": 0.3},
]
LENGTHS = {"text": np.array([3, 9, 1200]), "face": np.array([0, 0, 2])}
BUDGETS, FILLS = {"text": 2048, "face": 8}, {"text": 0.59, "face": 0.25}


def texts(axes):
  return [text.get_text() for text in axes.texts]


def is_readable(figure, path):
  figures.save(figure, path)
  return image.imread(path).std() > 0


class TestSave:
  def test_writes_a_png_and_nothing_else(self, tmp_path):
    figures.save(figures.learning_curves(RECORDS, "f1_micro", 20), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]

  def test_replaces_the_picture_of_before(self, tmp_path):
    (tmp_path / "a.png").write_text("old")
    assert is_readable(
      figures.learning_curves(RECORDS, "f1_micro", 20), tmp_path / "a.png"
    )


class TestLearningCurves:
  def test_has_both_losses_and_the_metric_with_its_best_step(self):
    left, right = figures.learning_curves(RECORDS, "f1_micro", 20).axes
    train, validation = left.lines
    assert train.get_ydata().tolist() == [0.5, 0.4]
    assert validation.get_ydata().tolist() == [0.6, 0.5]
    metric, best = right.lines
    assert metric.get_xydata().tolist() == [[10, 0.1], [20, 0.3]]
    assert best.get_xdata() == [20, 20]
    assert right.get_title() == "validation f1_micro"
    assert [t.get_text() for t in right.get_legend().get_texts()] == ["best, step 20"]

  def test_a_number_that_is_not_finite_is_a_gap(self):
    records = [*RECORDS, {"step": 30, "split": "train", "loss": None}]
    train = figures.learning_curves(records, "f1_micro", 20).axes[0].lines[0]
    assert train.get_xdata().tolist() == [10, 20, 30]
    assert np.isnan(train.get_ydata()[-1])

  @pytest.mark.parametrize("number", [0, 1, 2])
  def test_can_be_drawn_of_few_records(self, number, tmp_path):
    figure = figures.learning_curves(RECORDS[:number], "f1_micro", 10)
    assert is_readable(figure, tmp_path / "a.png")


class TestLabelF1:
  def test_has_a_bar_per_label_best_on_top_with_its_positives(self):
    figure = figures.label_f1(["a", "b", "c"], np.array([0.2, 0.9, 0.4]), [7, 8, 9])
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.2, 0.4, 0.9]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert [label.split() for label in labels] == [
      ["a", "(7)"],
      ["c", "(9)"],
      ["b", "(8)"],
    ]
    assert texts(axes) == ["0.20", "0.40", "0.90"]

  def test_marks_the_mean(self):
    (axes,) = figures.label_f1(["a", "b"], np.array([0.2, 0.6]), [1, 1]).axes
    assert axes.lines[0].get_xdata() == pytest.approx([0.4, 0.4])

  @pytest.mark.parametrize("number", [1, 74])
  def test_labels_do_not_run_into_each_other(self, number, tmp_path):
    names = [f"works-with::label-{i}" for i in range(number)]
    f1 = np.linspace(0, 1, number)
    figure = figures.label_f1(names, f1, np.arange(number))
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in figure.axes[0].get_yticklabels()]
    assert all(a.y1 <= b.y0 for a, b in itertools.pairwise(boxes))
    assert all(box.x0 >= 0 for box in boxes)
    assert is_readable(figure, tmp_path / "a.png")

  def test_a_name_is_no_formula(self, tmp_path):
    figure = figures.label_f1([r"$\frac$"], np.array([0.5]), [3])
    assert is_readable(figure, tmp_path / "a.png")


class TestSetSizes:
  def test_has_a_histogram_and_a_fill_for_each_modality(self):
    figure = figures.set_sizes(LENGTHS, BUDGETS, FILLS)
    text, text_fill, face, face_fill = figure.axes
    assert sum(bar.get_height() for bar in text.patches) == 3
    assert sum(bar.get_height() for bar in face.patches) == 1  # Two have none.
    assert text.get_xscale() == "log"
    assert [bar.get_width() for bar in text_fill.patches] == [1, 0.59]
    assert texts(face_fill) == ["25% of 8"]

  def test_says_how_many_examples_lack_the_modality(self):
    text, _, face, _ = figures.set_sizes(LENGTHS, BUDGETS, FILLS).axes
    assert text.get_title(loc="left").startswith("text: 0% without")
    assert face.get_title(loc="left").startswith("face: 67% without")

  def test_can_be_drawn_of_a_modality_that_nothing_has(self, tmp_path):
    figure = figures.set_sizes({"a": np.zeros(3, int)}, {"a": 8}, {"a": 0.0})
    assert "100% without" in figure.axes[0].get_title(loc="left")
    assert is_readable(figure, tmp_path / "a.png")
