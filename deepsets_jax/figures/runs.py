"""Figures of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deepsets_jax.figures.style import BLUE, GREY, LIGHT_BLUE, ORANGE, clean


def learning_curves(
  records: Sequence[Mapping[str, Any]], metric: str, best_step: int
) -> Figure:
  """Loss of both splits, and a validation metric with the best step marked.

  Args:
    records: Lines of `metrics.jsonl`.
    metric: Validation metric to draw.
    best_step: Step of the checkpoint that is kept.
  """
  figure = Figure(figsize=(9, 3.5), layout="constrained")
  left, right = figure.subplots(1, 2)
  for split, color in (("train", GREY), ("validation", BLUE)):
    left.plot(*_series(records, split, "loss"), color=color, label=split, lw=1.5)
  left.set(title="loss", xlabel="step")
  left.legend(frameon=False)
  right.plot(*_series(records, "validation", metric), color=BLUE, marker=".")
  right.axvline(best_step, color=ORANGE, lw=1, ls="--", label=f"best, step {best_step}")
  right.set(title=f"validation {metric}", xlabel="step")
  right.legend(frameon=False)
  clean(left, right)
  return figure


def label_f1(names: Sequence[str], f1: np.ndarray, support: np.ndarray) -> Figure:
  """A bar with the F1 of each label, best first, with its number of positives."""
  order = np.argsort(f1, kind="stable")
  height = 1.2 + 0.17 * len(names)
  figure = Figure(figsize=(7, height), layout="constrained")
  axes = figure.subplots()
  rows = np.arange(len(names))
  axes.barh(rows, f1[order], color=BLUE, height=0.7)
  for row, label in enumerate(order):
    axes.text(f1[label] + 0.01, row, f"{f1[label]:.2f}", va="center", fontsize=6.5)
  labels = [f"{names[i]}  ({int(support[i])})" for i in order]
  # A "$" in a name is not a formula.
  axes.set_yticks(rows, labels, fontsize=7, parse_math=False)
  axes.axvline(f1.mean(), color=ORANGE, lw=1, ls="--", label=f"mean {f1.mean():.3f}")
  axes.set(title="F1 by label (positives)", xlabel="F1 on test", xlim=(0, 1.05))
  axes.set_ylim(-0.7, len(names) - 0.3)
  axes.legend(frameon=False, loc="lower right")
  clean(axes)
  return figure


def set_sizes(
  lengths: Mapping[str, np.ndarray],
  budgets: Mapping[str, int],
  fills: Mapping[str, float],
) -> Figure:
  """Number of elements per example, and share of slots filled, for each modality.

  Args:
    lengths: Number of elements of each example, by modality: `[b]`.
    budgets: Slots of a shard, by modality.
    fills: Share of the slots that hold an element, by modality.
  """
  figure = Figure(figsize=(9, 0.6 + 1.1 * len(lengths)), layout="constrained")
  grid = figure.subplots(len(lengths), 2, width_ratios=(3, 1), squeeze=False)
  for row, (name, length) in enumerate(lengths.items()):
    left, right = grid[row]
    bins = np.unique(np.geomspace(1, max(length.max(), 2) + 1, 30).astype(int))
    left.hist(length[length > 0], bins=bins, color=BLUE)
    left.set(xscale="log", ylabel="examples", ylim=(0, None))
    left.xaxis.set_major_formatter("{x:g}")
    left.xaxis.set_minor_formatter("")
    left.set_title(
      f"{name}: {(length == 0).mean():.0%} without, mean {length.mean():.1f},"
      f" largest {length.max()}",
      loc="left",
      fontsize=9,
    )
    right.barh([0], [1], color="#e6e6e6")
    right.barh([0], [fills[name]], color=LIGHT_BLUE)
    right.text(
      0.5, 0, f"{fills[name]:.0%} of {budgets[name]}", ha="center", va="center"
    )
    right.set(xlim=(0, 1), yticks=[], xticks=[])
  grid[0, 1].set_title("slots filled", fontsize=9)
  grid[-1, 0].set_xlabel("elements per example")
  clean(*grid.ravel())
  return figure


def _series(
  records: Sequence[Mapping[str, Any]], split: str, name: str
) -> tuple[list[int], list[float]]:
  points = [(r["step"], r[name]) for r in records if r["split"] == split and name in r]
  return [step for step, _ in points], [np.nan if v is None else v for _, v in points]
