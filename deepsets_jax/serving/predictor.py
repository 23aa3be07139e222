"""Predict examples with a finished run and the encoding of its columns."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from jaxtyping import PyTree

from deepsets_jax.analysis import attribution
from deepsets_jax.analysis.attribution import outputs
from deepsets_jax.analysis.attribution.shapley import MOST_EXACT
from deepsets_jax.data.ingest.columns import cells
from deepsets_jax.data.ingest.columns.encoding import Encoding
from deepsets_jax.data.tables.arrow_lists import vectors_to_arrow
from deepsets_jax.data.tables.schema import Target
from deepsets_jax.data.tables.table import Table
from deepsets_jax.foundation.errors import ConfigError
from deepsets_jax.ragged import Batch, offsets_from_lengths
from deepsets_jax.tasks import trained
from deepsets_jax.tasks.supervised import encodings
from deepsets_jax.tasks.trained import Trained
from deepsets_jax.training import losses


@dataclasses.dataclass(frozen=True)
class Predictor:
  """A finished run with the encoding of the columns of its files.

  Attributes:
    trained: The run at its best checkpoint, without its data.
    encoding: Encoding of columns as modalities and targets.
    method: Method for the importance of modalities, a key of `attribution.METHODS`, or
      "none".
    digest: Hash of the run.
  """

  trained: Trained
  encoding: Encoding
  method: str
  digest: str

  @property
  def target(self) -> Target:
    """Schema of the target."""
    return self.encoding.schema.target

  def with_many(self, files: Mapping[str, str]) -> Predictor:
    """Return the predictor with other files of the joined tables, by table name.

    Raises:
      ConfigError: The run has no such table.
    """
    spec = self.encoding.spec.with_many(files)
    encoding = dataclasses.replace(self.encoding, spec=spec)
    return dataclasses.replace(self, encoding=encoding)

  def columns(self, table: Table) -> dict[str, pa.Array]:
    """Predict the examples of a table.

    Labels have the type of the label column in training; those of a binary target are 0
    and 1, or false and true.

    Returns:
      "labels": Multi-label: labels above the threshold of validation, perhaps none.
      "label": Multi-class and binary: the predicted label.
      "probability": Multi-class: of the predicted class. Binary: of 1 or true.
      "probabilities": Multi-label and multi-class: of all, in the order of their names.
      "value": Regression: in the units of the column.
      "embedding": The fused vector of all modalities.
      "importance": Importance of each modality, unless `method` is "none".
      "logits": For evaluation.
    """
    step = self.trained.step("logits and embedding", self._logits_and_embedding)
    both = self.trained.per_example(step, table)
    logits, embedding = both[:, : self.target.size], both[:, self.target.size :]
    found = self._predictions(logits) | {
      "embedding": vectors_to_arrow(embedding, np.float32)
    }
    found["logits"] = vectors_to_arrow(logits, np.float32)
    if self.method != "none":
      output = outputs.predicted(self.target, logits, self.trained.threshold)
      scores = attribution.compute(self.method, self.trained, table, output).modalities
      arrays = {k: pa.array(np.asarray(v, np.float32)) for k, v in scores.items()}
      found["importance"] = pa.StructArray.from_arrays(
        list(arrays.values()), names=list(arrays)
      )
    return found

  @property
  def _label_type(self) -> pa.DataType:
    """Type of a label in the training file."""
    kind = self.encoding.columns.field(self.encoding.spec.label.column).type
    return kind.value_type if cells.is_list(kind) else kind

  @property
  def _names(self) -> pa.Array:
    """Labels or classes in the type of training, or as strings if that fails."""
    names = pa.array(self.target.names, pa.string())
    try:
      return names.cast(self._label_type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
      return names

  def _logits_and_embedding(self, params: PyTree, batch: Batch) -> PyTree:
    model = self.trained.run.model
    variables = {"params": params}
    fused = model.apply(variables, batch.modalities, method="embed")
    logits = model.apply(variables, fused, method="classify")
    return jnp.concatenate([logits, fused.astype(logits.dtype)], axis=-1)

  def _predictions(self, logits: np.ndarray) -> dict[str, pa.Array]:
    target, threshold = self.target, self.trained.threshold
    chances = losses.probabilities(target, logits)
    column = vectors_to_arrow(chances.reshape(len(chances), -1), np.float32)
    match target.kind:
      case "multilabel":
        chosen = chances > threshold
        offsets = offsets_from_lengths(chosen.sum(axis=1))
        names = self._names.take(pa.array(np.nonzero(chosen)[1]))
        labels = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), names)
        return {
          "labels": labels,
          "probabilities": column,
        }
      case "multiclass":
        best = logits.argmax(axis=1)
        chance = chances[np.arange(len(best)), best]
        return {
          "label": self._names.take(pa.array(best)),
          "probability": pa.array(chance.astype(np.float32)),
          "probabilities": column,
        }
      case "binary":
        return {
          "label": pa.array(chances > threshold).cast(self._label_type),
          "probability": pa.array(chances.astype(np.float32)),
        }
    one = target.size == 1
    return {"value": pa.array(chances[:, 0]) if one else column}


def load_predictor(workdir: str | pathlib.Path, method: str = "usual") -> Predictor:
  """Open a finished run on a file.

  Args:
    workdir: Folder of the run.
    method: Method for the importance of modalities: a key of `attribution.METHODS`,
      "none", or "usual" for Shapley values of up to 12 modalities and leave-one-out of
      more.

  Raises:
    ConfigError: The run does not exist, has not ended or was on other data, or its
      model does not have the method.
  """
  workdir = pathlib.Path(workdir)
  encoding = encodings.read(workdir)
  run = trained.load_trained(workdir, encoding.schema)
  modalities = len(encoding.schema.modalities)
  if method == "usual":
    method = "shapley" if modalities <= MOST_EXACT else "leave_one_out"
  if method != "none":
    attribution.check([method], run)
  if method == "shapley" and modalities > MOST_EXACT:
    raise ConfigError(
      f"Shapley values need at most {MOST_EXACT} modalities, but the run has"
      f" {modalities}; choose leave_one_out or none"
    )
  digest = hashlib.sha256((workdir / "results.json").read_bytes())
  digest.update((workdir / "config.json").read_bytes())
  return Predictor(run, encoding, method, digest.hexdigest())
