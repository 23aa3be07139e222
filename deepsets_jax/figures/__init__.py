"""Figures from plain arrays and names, without a window or global state."""

from deepsets_jax.figures.attribution import agreement, ranked_elements, removal, shares
from deepsets_jax.figures.costs import quality_against_cost
from deepsets_jax.figures.robustness import modality_bars, robustness_curves
from deepsets_jax.figures.runs import label_f1, learning_curves, set_sizes
from deepsets_jax.figures.style import save

__all__ = [
  "agreement",
  "label_f1",
  "learning_curves",
  "modality_bars",
  "quality_against_cost",
  "ranked_elements",
  "removal",
  "robustness_curves",
  "save",
  "set_sizes",
  "shares",
]
