"""What a run says of a file of any size: row by row, in order, in constant memory.

The output grows part by part in a folder beside it, and is put together at the end; the
same command goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import PyTree

from deepsets_jax import importance, losses, run_folder, trained
from deepsets_jax.data.columns.encoding import Encoding
from deepsets_jax.data.columns.spec import NUMERIC, shortened
from deepsets_jax.data.columns.survey import numbered
from deepsets_jax.data.files import opening, paths
from deepsets_jax.data.files.source import Source
from deepsets_jax.data.table import DataError, Table
from deepsets_jax.importance import outputs
from deepsets_jax.importance.shapley import MOST_EXACT
from deepsets_jax.ragged import Batch
from deepsets_jax.schema import Target
from deepsets_jax.trained import Trained
from deepsets_jax.writers import write_json

_MANIFEST = "manifest.json"


@dataclasses.dataclass(frozen=True)
class Predictor:
  """A finished run with how columns of a file become its modalities.

  Attributes:
    trained: The run at its best checkpoint, without its data.
    encoding: Of the columns.
    method: Of the importance by modality, a key of `importance.METHODS`, or "none".
    digest: Of the run.
  """

  trained: Trained
  encoding: Encoding
  method: str
  digest: str

  @property
  def target(self) -> Target:
    """What is predicted."""
    return self.encoding.schema.target

  def columns(self, table: Table) -> dict[str, pa.Array]:
    """What is said of each example of a table.

    Of labels: `labels`, those above the threshold of validation, which may be none; of
    classes `label`; of a binary target `label`, 0 or 1; with
    `probability` or `probabilities`, in the order of the file's metadata. Of a
    regression `value`, in the units of the column that was trained on. Then
    `embedding`, the vector that all modalities were fused to, and `importance`.
    """
    step = self.trained.step("logits and embedding", self._of_shard)
    both = self.trained.per_example(step, table)
    logits, embedding = both[:, : self.target.size], both[:, self.target.size :]
    found = self._answers(logits) | {"embedding": _vectors(embedding)}
    if self.method != "none":
      output = outputs.predicted(self.target, logits, self.trained.threshold)
      scores = importance.compute(self.method, self.trained, table, output).modalities
      arrays = {k: pa.array(np.asarray(v, np.float32)) for k, v in scores.items()}
      found["importance"] = pa.StructArray.from_arrays(
        list(arrays.values()), names=list(arrays)
      )
    return found

  def _of_shard(self, params: PyTree, batch: Batch) -> PyTree:
    model = self.trained.run.model
    variables = {"params": params}
    fused = model.apply(variables, batch.modalities, method="embed")
    logits = model.apply(variables, fused, method="classify")
    return jnp.concatenate([logits, fused.astype(logits.dtype)], axis=-1)

  def _answers(self, logits: np.ndarray) -> dict[str, pa.Array]:
    target, threshold = self.target, self.trained.threshold
    chances = losses.probabilities(target, logits)
    match target.kind:
      case "multilabel":
        chosen = chances > threshold
        offsets = np.append(0, np.cumsum(chosen.sum(axis=1)))
        names = pa.array(target.names).take(pa.array(np.nonzero(chosen)[1]))
        labels = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), names)
        return {"labels": labels, "probabilities": _vectors(chances)}
      case "multiclass":
        best = logits.argmax(axis=1)
        chance = chances[np.arange(len(best)), best]
        return {
          "label": pa.array(target.names).take(pa.array(best)),
          "probability": pa.array(chance.astype(np.float32)),
          "probabilities": _vectors(chances),
        }
      case "binary":
        return {
          "label": pa.array((chances > threshold).astype(np.int8)),
          "probability": pa.array(chances.astype(np.float32)),
        }
    one = target.size == 1
    return {"value": pa.array(chances[:, 0]) if one else _vectors(chances)}


def load(workdir: str | pathlib.Path, method: str = "usual") -> Predictor:
  """The predictor of a finished run on a file.

  Args:
    workdir: Folder of the run.
    method: Of the importance by modality: "usual" takes Shapley values of up to 12
      modalities, and leaves one out of more; "none", or a key of `importance.METHODS`.

  Raises:
    ValueError: No such run, one that has not ended or that was on other data; or the
      method is none of its model.
  """
  workdir = pathlib.Path(workdir)
  encoding = run_folder.encoding(workdir)
  run = trained.load(workdir, encoding.schema)
  modalities = len(encoding.schema.modalities)
  if method == "usual":
    method = "shapley" if modalities <= MOST_EXACT else "leave_one_out"
  if method != "none":
    importance.check([method], run)
  if method == "shapley" and modalities > MOST_EXACT:
    raise ValueError(
      f"{modalities} modalities, and Shapley values of each row are for up to"
      f" {MOST_EXACT}: take leave_one_out, or none"
    )
  digest = hashlib.sha256((workdir / "results.json").read_bytes())
  digest.update((workdir / "config.json").read_bytes())
  return Predictor(run, encoding, method, digest.hexdigest())


def write(
  predictor: Predictor,
  path: str,
  output: str | pathlib.Path,
  report: Callable[[str], Any],
  progress: Callable[[int], Any] = lambda rows: None,
) -> int:
  """Predicts every row of a file, and writes them in its order.

  A column of the spec that is not there is an absent modality.

  Args:
    predictor: The run.
    path: Of the file, see `opening.open_source`.
    output: Parquet file to write.
    report: Told once of every column that is absent or unknown.
    progress: Told of the number of rows that are done.

  Returns:
    The number of rows.

  Raises:
    FileExistsError: There is something at `output`.
    DataError: No column of the spec, or a bad value; or parts of another prediction.
  """
  output = pathlib.Path(output)
  if output.exists():
    raise FileExistsError(f"{output} exists; remove it, or choose another --output")
  source = opening.open_source(path, schema=_wanted(predictor.encoding, path))
  columns = _columns(predictor.encoding, source, report)
  parts = output.with_name(f"{output.name}.parts")
  done = _adopt(parts, predictor, path)
  if done:
    report(f"{parts}: {done} rows are there already")
  progress(done)
  something = done > 0
  encoding = predictor.encoding.at(paths.folder(path))
  identity = encoding.spec.id if encoding.spec.id in columns else None
  for rows, batch in numbered(source, columns, done):
    table = encoding.table(batch, rows, source.where, labelled=False)
    something |= any(len(elements.values) for elements in table.modalities.values())
    names = batch[identity] if identity else pa.array(rows)
    found = {identity or "row": names} | predictor.columns(table)
    _write_part(parts / f"{rows[0]:015d}.parquet", pa.table(found))
    done = int(rows[-1]) + 1
    progress(done)
  if not something:
    report(f"{source.where}: no row has anything to predict from; all are as one")
  _join(parts, output, predictor)
  shutil.rmtree(parts)
  return done


def _wanted(encoding: Encoding, path: str) -> pa.Schema:
  """The types that the columns shall have that are read; a label's is all one.

  Pictures may be bytes or paths. Numbers stay as they are in files that have types:
  large whole ones are not exact as floats, and are refused as such.
  """
  typed = {paths.KIND_OF.get(paths.suffix(file)) for file in paths.files(path)}
  free = {"image", *(NUMERIC if typed <= {"Parquet", "Arrow"} else ())}
  of_spec = encoding.spec
  names = {
    column: None
    for kind in of_spec.modalities.values()
    for column, one in kind.by_column.items()
    if one.kind not in free
  }
  names |= {of_spec.id: None} if of_spec.id else {}
  return pa.schema([encoding.columns.field(name) for name in names])


def _columns(
  encoding: Encoding, source: Source, report: Callable[[str], Any]
) -> list[str]:
  """The columns to read, after a look at all of the file's."""
  spec, there = encoding.spec, source.schema
  unknown = sorted(set(there.names) - set(encoding.columns.names))
  if unknown:
    report(
      f"{source.where}: columns that training had not are not read:"
      f" {shortened(unknown)}"
    )
  kinds = [
    (name, column, kind)
    for name, whole in spec.modalities.items()
    for column, kind in whole.by_column.items()
  ]
  if not any(column in there.names for _, column, _ in kinds):
    raise DataError(
      f"{source.where}: no column of the run's spec; it has {shortened(there.names)},"
      f" the spec {shortened(sorted(column for _, column, _ in kinds))}"
    )
  used = {}
  for name, column, kind in kinds:
    several = len(spec.modalities[name].by_column) > 1
    absent = f"{'its part of ' if several else ''}{name!r} is absent"
    if column not in there.names:
      report(f"{source.where}: no column {column!r}: {absent}")
    elif pa.types.is_null(found := there.field(column).type):
      report(f"{source.where}: column {column!r} is empty: {absent}")
    elif not kind.accepts(found):
      raise DataError(
        f"{source.where}: column {column!r} is {found}, and the run reads"
        f" {kind.takes} in it; write it so, or leave it out"
      )
    else:
      used[column] = None
  return [*used, *([spec.id] if spec.id in there.names and spec.id not in used else [])]


def _adopt(parts: pathlib.Path, predictor: Predictor, path: str) -> int:
  """Makes the folder of parts, or takes it over; returns the rows that are done."""
  facts = [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in paths.files(path)]
  manifest = {"run": predictor.digest, "method": predictor.method, "input": facts}
  known = parts / _MANIFEST
  if not known.exists():
    parts.mkdir(parents=True, exist_ok=True)
    write_json(known, manifest)
    return 0
  if json.loads(known.read_text()) != manifest:
    raise DataError(
      f"{parts} holds parts of another prediction (of another run, input or method):"
      " remove it, or choose another --output"
    )
  done = 0
  for part in sorted(parts.glob("*.parquet")):
    if int(part.stem) != done:
      raise DataError(f"{parts}: no part of row {done}; remove the folder")
    done += pq.read_metadata(part).num_rows
  return done


def _vectors(values: np.ndarray) -> pa.FixedSizeListArray:
  flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
  return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _write_part(path: pathlib.Path, table: pa.Table) -> None:
  temporary = path.with_suffix(".tmp")
  pq.write_table(table, temporary)
  temporary.replace(path)


def _join(parts: pathlib.Path, output: pathlib.Path, predictor: Predictor) -> None:
  """One file of all parts, a row group each; or nothing."""
  found = sorted(parts.glob("*.parquet"))
  if not found:
    raise DataError("the file has no rows: there is nothing to predict")
  facts = {"labels": predictor.target.names, "importance": predictor.method}
  schema = pq.read_schema(found[0]).with_metadata(
    {key: json.dumps(value) for key, value in facts.items()}
  )
  temporary = parts / "all.tmp"
  with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
    for part in found:
      writer.write_table(pq.read_table(part).cast(schema))
  temporary.replace(output)
