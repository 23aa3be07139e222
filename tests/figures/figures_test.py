"""Figures show their numbers, for usual data and for the smallest data."""

import io
import itertools

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from deepsets_jax import figures
from deepsets_jax.figures import style
from deepsets_jax.figures.attribution import Bar, Line

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


SHARES = {"argmax": {"word": 0.7, "$face": 0.3}, "shapley": {"word": 0.2, "$face": 0.8}}


class TestShares:
  def test_has_a_bar_per_modality_and_a_panel_per_method(self):
    figure = figures.shares(SHARES)
    for axes, (method, each) in zip(figure.axes, SHARES.items(), strict=True):
      assert axes.get_title() == method
      assert [bar.get_width() for bar in axes.patches] == list(each.values())
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["word", "$face"]
    assert [t.strip() for t in texts(figure.axes[1])] == ["0.20", "0.80"]

  def test_a_modality_has_one_colour(self):
    colors = [
      [bar.get_facecolor() for bar in axes.patches]
      for axes in figures.shares(SHARES).axes
    ]
    assert colors[0] == colors[1] and colors[0][0] != colors[0][1]

  @pytest.mark.parametrize(("methods", "modalities"), [(1, 1), (5, 3), (7, 12)])
  def test_numbers_stay_in_their_panels(self, methods, modalities, tmp_path):
    found = {
      f"method_{i}": {rf"a $\frac$ name {j}" * 3: j / 12 for j in range(modalities)}
      for i in range(methods)
    }
    figure = figures.shares(found)
    figure.draw_without_rendering()
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == methods
    for axes in shown:
      frame = axes.get_window_extent()
      assert all(t.get_window_extent().x1 <= frame.x1 for t in axes.texts)
    assert is_readable(figure, tmp_path / "a.png")


def line(*values):
  x = np.linspace(0, 1, len(values))
  return Line(x, values, np.array(values) - 0.1, np.array(values) + 0.1)


CURVES = {
  "deletion": {"argmax": line(0.9, 0.5, 0.1), "shapley": line(0.9, 0.2, 0.1)},
  "insertion": {"argmax": line(0.1, 0.5, 0.9), "shapley": line(0.1, 0.8, 0.9)},
}


RANDOM = {
  "deletion": Line([0, 0.5, 1], [0.9, 0.6, 0.1]),
  "insertion": Line([0, 0.5, 1], [0.1, 0.4, 0.9]),
}


class TestRemoval:
  def test_has_a_line_and_a_band_per_method_and_one_of_chance(self):
    figure = figures.removal("f1_micro", CURVES, RANDOM, "by chance")
    for axes, (panel, lines) in zip(figure.axes, CURVES.items(), strict=True):
      assert axes.get_title() == panel
      *drawn, chance = axes.lines
      assert [one.get_label() for one in drawn] == list(lines)
      for one, want in zip(drawn, lines.values(), strict=True):
        assert one.get_ydata().tolist() == list(want.values)
      assert list(chance.get_ydata()) == RANDOM[panel].values
      assert chance.get_linestyle() == "--"
      for band, want in zip(axes.collections, lines.values(), strict=True):
        extent = band.get_paths()[0].get_extents()
        assert extent.y0 == pytest.approx(min(want.lower))
        assert extent.y1 == pytest.approx(max(want.upper))
    assert figure.axes[0].get_ylabel() == "f1_micro"

  def test_its_legend_is_beside_the_data(self):
    figure = figures.removal("f1_micro", CURVES, RANDOM, "by chance")
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert all(box.x0 >= axes.get_window_extent().x1 for axes in figure.axes)
    assert box.x1 <= figure.bbox.x1
    assert [t.get_text() for t in legend.get_texts()][-1] == "by chance"


class TestAgreement:
  def test_has_each_number_and_a_dash_where_there_is_none(self, tmp_path):
    values = np.array([[1, 0.25, np.nan], [0.25, 1, -0.8], [np.nan, -0.8, 1]])
    figure = figures.agreement(["a", "b", "c"], values)
    found = texts(figure.axes[0])
    assert found[:6] == ["1.00", "0.25", "\N{EN DASH}", "0.25", "1.00", "-0.80"]
    assert is_readable(figure, tmp_path / "a.png")


PANELS = {
  "argmax": [[Bar("editor", "word", 0.7), Bar("$x$", "face", 0.2, 0.1)]],
  "shapley": [[Bar("word", "word", 2.0)], [Bar("face", "face", -1.0)]],
}


class TestRankedElements:
  def test_has_a_bar_per_element_in_its_modalitys_colour(self):
    figure = figures.ranked_elements(PANELS, ["word", "face", "absent"])
    first, second = figure.axes
    assert [bar.get_width() for bar in first.patches] == [0.7, 0.2]
    assert [bar.get_width() for bar in second.patches] == [2, -1]
    assert [t.get_text() for t in first.get_yticklabels()] == ["editor", "$x$"]
    colors = [bar.get_facecolor() for bar in first.patches]
    assert colors == [bar.get_facecolor() for bar in second.patches]
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["word", "face"]
    assert [patch.get_facecolor() for patch in legend.get_patches()] == colors

  def test_the_most_important_is_above_and_groups_have_a_gap(self):
    axes = figures.ranked_elements(PANELS, ["word", "face"]).axes[1]
    assert axes.get_yticks().tolist() == [0, 2]
    low, high = axes.get_ylim()
    assert low > high

  def test_an_example_without_elements_says_so(self, tmp_path):
    figure = figures.ranked_elements({"argmax": []}, ["word"])
    assert texts(figure.axes[0]) == ["no elements"]
    assert is_readable(figure, tmp_path / "a.png")

  @pytest.mark.parametrize("methods", [1, 7])
  def test_labels_and_legend_stay_in_the_picture(self, methods, tmp_path):
    modalities = [rf"modality $\frac$ {i} of a long name" for i in range(12)]
    bars = [Bar(r"an element $\frac$ of a long name", m, 1e-5) for m in modalities]
    panels = {f"method_{i}": [bars, bars[:3]] for i in range(methods)}
    figure = figures.ranked_elements(panels, modalities)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    inside = figure.bbox.padded(1)
    for artist in (legend, *figure.axes[0].get_yticklabels()):
      box = artist.get_window_extent()
      assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0
    boxes = [t.get_window_extent() for t in figure.axes[0].get_yticklabels()]
    assert all(a.y0 >= b.y1 for a, b in itertools.pairwise(boxes))
    assert is_readable(figure, tmp_path / "a.png")


def test_characters_that_no_font_has_are_escaped_and_none_is_a_box(monkeypatch):
  figure = Figure()
  axes = figure.subplots()
  axes.set_yticks([0, 1], ["größe", "名前"], fontsize=7)
  axes.set_title("名前 = 1")
  axes.plot([0, 1], [0, 1], label="名")
  axes.legend()
  has = style._family
  monkeypatch.setattr(style, "_family", lambda c: None if ord(c) > 0x4E00 else has(c))
  # A warning of a missing glyph would be an error.
  style.write_png(figure, io.BytesIO(), dpi=50)
  labels = [label.get_text() for label in axes.get_yticklabels()]
  assert labels == ["größe", r"\u540d\u524d"]
  assert axes.get_title() == r"\u540d\u524d = 1"
  assert axes.get_legend().get_texts()[0].get_text() == r"\u540d"
  assert axes.get_yticklabels()[0].get_fontsize() == 7
