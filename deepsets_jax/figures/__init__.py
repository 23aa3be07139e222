"""Pictures, as matplotlib figures without a window or global state."""

from deepsets_jax.figures.costs import quality_against_cost
from deepsets_jax.figures.runs import label_f1, learning_curves, set_sizes
from deepsets_jax.figures.style import save

__all__ = ["label_f1", "learning_curves", "quality_against_cost", "save", "set_sizes"]
