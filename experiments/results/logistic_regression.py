"""One-vs-rest logistic regression on debian_programs, as a linear baseline.

  python -m experiments.results.logistic_regression --seed=0

The inputs are the TF-IDF weights of some token modalities, side by side. The penalty
and the threshold, one for all labels, are chosen on validation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse
from absl import flags
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from deepsets_jax.data.datasets import debian_programs
from deepsets_jax.data.tables.table import Table
from deepsets_jax.training import metrics
from experiments import command

_SEED = flags.DEFINE_integer("seed", 0, "Seed of the split.")
MODALITIES = ("description", "depends")
_INVERSE_PENALTIES = (3.0, 10.0, 30.0)


def features(table: Table, modalities: Sequence[str]) -> scipy.sparse.csr_matrix:
  """Return token weights as a sparse matrix `[b, sum of vocabulary sizes]`."""
  blocks = []
  for name in modalities:
    ragged, size = table.modalities[name], table.schema.modalities[name].size
    parts = (ragged.weights, ragged.values, ragged.offsets)
    blocks.append(scipy.sparse.csr_matrix(parts, shape=(len(table), size)))
  return scipy.sparse.hstack(blocks, format="csr")


def evaluate(seed: int, modalities: Sequence[str] = MODALITIES) -> dict[str, dict]:
  """Return the metrics on "validation" and "test", as in a run's `results.json`."""
  tables = debian_programs.load_debian_programs(seed, text="bag")
  inputs = {split: features(table, modalities) for split, table in tables.items()}
  best = None
  for inverse_penalty in _INVERSE_PENALTIES:
    model = OneVsRestClassifier(
      LogisticRegression(C=inverse_penalty, solver="liblinear")
    )
    model.fit(inputs["train"], tables["train"].targets)
    results = _metrics(model, inputs, tables)
    value = results["validation"]["f1_micro"]
    if best is None or value > best["validation"]["f1_micro"]:
      best = results
  return best


def _metrics(model, inputs: dict, tables: dict[str, Table]) -> dict[str, dict]:
  logits = {s: model.decision_function(inputs[s]) for s in ("validation", "test")}
  threshold = metrics.choose_threshold(
    logits["validation"], tables["validation"].targets
  )
  results = {"threshold": threshold}
  for split, values in logits.items():
    table = tables[split]
    results[split] = metrics.for_target(
      table.schema.target, values, table.targets, np.ones(len(table)), threshold
    )
  return results


def main(argv: list[str]) -> None:
  """Prints the metrics of one seed."""
  command.reject_arguments(argv)
  results = evaluate(_SEED.value)
  for split in ("validation", "test"):
    print(split, "  ".join(f"{k} {v:.4f}" for k, v in results[split].items()))


if __name__ == "__main__":
  command.run(main)
