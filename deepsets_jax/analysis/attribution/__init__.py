"""Which elements and modalities decided: several methods, one form of result.

trained = deepsets_jax.tasks.trained.load("runs/debian_programs")
table = trained.run.tables["test"]
found = importance.compute("shapley", trained, table)
found.shares()      # of the data set, by modality
found.modalities    # of each example, by modality
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
from deepsets_jax.analysis.attribution.result import Element, Importance
from deepsets_jax.analysis.attribution.shapley import of_elements, of_modalities
from deepsets_jax.analysis.attribution.sown import argmax, attention, is_reported
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.tasks.trained import Trained

METHODS: Mapping[str, Callable[..., Importance]] = {
  "argmax": argmax,
  "attention": attention,
  "shapley": of_modalities,
  "element_shapley": of_elements,
  "leave_one_out": leave_one_out,
  "gradient_x_input": gradient_x_input,
  "integrated_gradients": integrated_gradients,
}
# Those that only some models can tell, and of which.
_NEEDS = {
  "argmax": "a set pool with 'max' or 'min' among its pools",
  "attention": "a fusion with attention, such as 'mil' or 'single_stream'",
}


def possible(trained: Trained) -> list[str]:
  """The methods that a model has."""
  return [name for name in METHODS if name not in _NEEDS or is_reported(trained, name)]


def compute(
  method: str, trained: Trained, table: Table, output: Output | None = None, **settings
) -> Importance:
  """The importance of everything in a table by one method.

  Args:
    method: A key of `METHODS`.
    trained: The model.
    table: Of its schema, such as `trained.run.tables["test"]`.
    output: What is explained; by default what speaks for the prediction, see
      `outputs.predicted`.
    **settings: Of the method, such as permutations.

  Raises:
    ConfigError: No such method, or not of this model; the message says which are. Or a
      table without examples.
  """
  check([method], trained)
  if not len(table):
    raise ConfigError("no examples to explain: the table has none")
  if output is None:
    target, threshold = table.schema.target, trained.threshold
    output = outputs.predicted(target, trained.logits(table), threshold)
  return METHODS[method](trained, table, output, **settings)


def check(methods: Sequence[str], trained: Trained) -> None:
  """Raises where a method does not exist, or is none of this model.

  Raises:
    ConfigError: See `compute`.
  """
  able = possible(trained)
  for name in methods:
    if name not in METHODS:
      raise ConfigError(f"unknown method {name!r}; one of {list(METHODS)}")
    if name not in able:
      config = trained.run.config.model
      raise ConfigError(
        f"{name} importance is of {_NEEDS[name]}, and this run's fusion is"
        f" {config.fusion!r} with {config[config.fusion].to_dict()}; possible here:"
        f" {able}"
      )


__all__ = [
  "METHODS",
  "Element",
  "Importance",
  "Output",
  "check",
  "compute",
  "possible",
]
