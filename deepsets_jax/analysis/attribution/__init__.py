"""Feature attribution: how much each element and modality contributes to an output.

All methods return the same `Attribution`.

trained = deepsets_jax.tasks.trained.load_trained("runs/debian_programs")
table = trained.run.tables["test"]
found = attribution.compute("shapley", trained, table)
found.shares()      # Mean share of each modality in the table.
found.modalities    # Scores per example, by modality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from deepsets_jax.analysis.attribution import outputs
from deepsets_jax.analysis.attribution.gradients import (
  gradient_x_input,
  integrated_gradients,
)
from deepsets_jax.analysis.attribution.leave_one_out import leave_one_out
from deepsets_jax.analysis.attribution.outputs import Output
from deepsets_jax.analysis.attribution.result import Attribution, Element
from deepsets_jax.analysis.attribution.shapley import of_elements, of_modalities
from deepsets_jax.analysis.attribution.sown import argmax, attention, is_reported
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.tasks.trained import Trained

METHODS: Mapping[str, Callable[..., Attribution]] = {
  "argmax": argmax,
  "attention": attention,
  "shapley": of_modalities,
  "element_shapley": of_elements,
  "leave_one_out": leave_one_out,
  "gradient_x_input": gradient_x_input,
  "integrated_gradients": integrated_gradients,
}
# Requirements of the methods that not every model supports.
_NEEDS = {
  "argmax": "a set pool with 'max' or 'min' among its pools",
  "attention": "a fusion with attention, such as 'mil' or 'single_stream'",
}


def possible(trained: Trained) -> list[str]:
  """The methods that a model has."""
  return [name for name in METHODS if name not in _NEEDS or is_reported(trained, name)]


def compute(
  method: str, trained: Trained, table: Table, output: Output | None = None, **settings
) -> Attribution:
  """Compute the attribution of every example of a table by one method.

  Args:
    method: A key of `METHODS`.
    trained: The model.
    table: Examples of the model's schema, such as `trained.run.tables["test"]`.
    output: The quantity to explain, one number per example; by default the score of the
      predicted label, see `outputs.predicted`.
    **settings: Keyword arguments of the method, such as `permutations`.

  Raises:
    ConfigError: The method is unknown or not supported by this model, or the table has
      no examples.
  """
  check([method], trained)
  if not len(table):
    raise ConfigError("no examples to explain: the table is empty")
  if output is None:
    target, threshold = table.schema.target, trained.threshold
    output = outputs.predicted(target, trained.logits(table), threshold)
  return METHODS[method](trained, table, output, **settings)


def check(methods: Sequence[str], trained: Trained) -> None:
  """Raise if a method is unknown or not supported by this model.

  Raises:
    ConfigError: The message lists the supported methods.
  """
  able = possible(trained)
  for name in methods:
    if name not in METHODS:
      raise ConfigError(f"unknown method {name!r}; choose from {list(METHODS)}")
    if name not in able:
      config = trained.run.config.model
      raise ConfigError(
        f"{name} attribution needs {_NEEDS[name]}, but this run's fusion is"
        f" {config.fusion!r} with {config[config.fusion].to_dict()}. Methods of this"
        f" model: {able}"
      )


__all__ = [
  "METHODS",
  "Attribution",
  "Element",
  "Output",
  "check",
  "compute",
  "possible",
]
